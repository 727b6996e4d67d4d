/* SPDX-License-Identifier: MIT
 *
 * What states and reasons are called, and what a person is told: the closed lists of devbroker(1).
 */
#include "broker/lease.h"

#include <assert.h>
#include <string.h>

#include "base/cleanup.h"

struct reason {
	const char *code;
	const char *sentence;
	const char *remedy;
};

#define LOOK_AT_LOG "Look at the log: journalctl -u devbrokerd."

static const struct reason reasons[] = {
	[LEASE_REASON_NONE] = {"", "", ""},
	[LEASE_REASON_USER_DETACH] = {"user-detach", "It was detached on request.", ""},
	[LEASE_REASON_GUEST_EJECTED] = {"guest-ejected", "The guest ejected it.",
		"Attach it again when it is wanted again."},
	[LEASE_REASON_VM_GONE] = {"vm-gone", "Its VM is not running; it follows when it starts.",
		"Start the VM."},
	[LEASE_REASON_VM_BUSY] = {"vm-busy",
		"The VM's QMP socket does not answer: is another program connected to it?",
		"Give devbroker a QMP socket of its own: -qmp unix:PATH,server=on,wait=off"},
	[LEASE_REASON_VMM_UNPLUGGED] = {"vmm-unplugged", "It was unplugged in the VMM.",
		"Attach it again when it is wanted again."},
	[LEASE_REASON_VMM_REFUSED] = {"vmm-refused", "The VMM refused it.",
		"Check bus= of the VM, and that its controller has a free port."},
	[LEASE_REASON_QMP_FAILED] = {"qmp-failed", "The VMM could not be told to plug it.",
		"Check that qmp= of the VM is a QMP socket."},
	[LEASE_REASON_PEER_VIOLATION] = {"peer-violation", "The VM broke the usbredir protocol.",
		"Look at what runs in that VM, and at its VMM, before you attach it again."},
	[LEASE_REASON_WORKER_DIED] = {"worker-died", "Its worker died.", LOOK_AT_LOG},
	[LEASE_REASON_WORKER_HUNG] = {"worker-hung", "Its worker did not answer and was ended.",
		LOOK_AT_LOG},
	[LEASE_REASON_WORKER_FAILED] = {"worker-failed", "Its worker could not be started.",
		LOOK_AT_LOG},
	[LEASE_REASON_IMAGE_INVALID] = {"image-invalid", "Its image can't be used.",
		"Correct the image or its path, and attach it again."},
	[LEASE_REASON_IMAGE_BUSY] = {"image-busy", "Another program holds its image.",
		"Stop that program, or use a copy of the image."},
	[LEASE_REASON_IO_ERROR] = {"io-error", "Its image failed.",
		"Check the disk that holds the image."},
	[LEASE_REASON_DEVICE_GONE] = {"device-gone", "It was unplugged from the host.",
		"Plug it in again."},
	[LEASE_REASON_DEVICE_BUSY] = {"device-busy", "The host uses it.",
		"Stop what uses it on the host (unmount it, close the program), and attach it "
		"again."},
	[LEASE_REASON_DEVICE_LOST] = {"device-lost", "It does not work any more.",
		"Unplug it and plug it in again."},
	[LEASE_REASON_DENIED] = {"denied", "It may not be lent.", ""},
	[LEASE_REASON_POLICY] = {"policy", "Rules want it elsewhere now.",
		"See why: devbroker explain DEVICE"},
	[LEASE_REASON_QUOTA] = {"quota", "A quota of the VM is used up.",
		"Release something, or raise the limit in the [quota] section."},
	[LEASE_REASON_SHUTDOWN] = {"shutdown", "devbrokerd is stopping.", ""},
};
static_assert(ARRAY_SIZE(reasons) == LEASE_REASON_COUNT_, "one per reason");

static const char *const state_names[] = {
	"present", "decided", "claiming", "connecting", "attached", "configured", "releasing"};
static_assert(ARRAY_SIZE(state_names) == LEASE_STATE_COUNT_, "one per state");

const char *lease_state_name(enum lease_state state)
{
	return state_names[state];
}

const char *lease_reason_code(enum lease_reason reason)
{
	return reasons[reason].code;
}

const char *lease_reason_sentence(enum lease_reason reason)
{
	return reasons[reason].sentence;
}

const char *lease_reason_remedy(enum lease_reason reason)
{
	return reasons[reason].remedy;
}

enum lease_reason lease_reason_of(const char *code)
{
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		if (strcmp(reasons[i].code, code) == 0) {
			return (enum lease_reason)i;
		}
	}
	return LEASE_REASON_NONE;
}
