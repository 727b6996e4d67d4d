/* SPDX-License-Identifier: MIT
 * Broker1.Capture: the worker of a lent device writes what goes over the wire into a pipe, whose
 * other end the caller gets. The broker keeps neither.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/device-usb.h"
#include "broker/device.h"
#include "broker/lease.h"
#include "broker/usb-facts.h"
#include "broker/vm.h"
#include "broker/worker.h"

/* As much as an ordinary user may have by default. */
#define PIPE_BYTES (1 << 20)

static int start(struct device *d, bool headers_only, int *fd_out, struct refusal_text *text)
{
	const struct device_usb *u = device_usb(d);
	const struct usb_facts *f = u ? u->facts : NULL;
	struct lease *l = d->lease;
	_cleanup_close_ int reads = -1, writes = -1;
	int fds[2], r;

	if (!l || !l->worker || !l->worker->ready) {
		return refuse_with(text, REFUSAL_NOT_ATTACHED,
			"Attach it first; it need not be configured yet.",
			"%s is in no VM now: there is nothing to capture", d->name);
	}
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		return -errno;
	}
	reads = fds[0];
	writes = fds[1];
	/* Smaller will do. */
	_unused_ int size = fcntl(writes, F_SETPIPE_SZ, PIPE_BYTES);
	r = worker_capture(l->worker, f ? f->busnum : 0, f ? f->devnum : 1, headers_only, writes);
	if (r == 0) {
		*fd_out = steal_fd(&reads);
	}
	return r;
}

/* Its VM's owner sees in the VM what a capture shows, and no more. */
static int permit(
	struct bus_connection *c, sd_bus_message *m, struct device *d, sd_bus_error *error)
{
	if (d->lease) {
		return bus_permit_vm(c, m, d->lease->vm, error);
	}
	return 0;
}

int bus_on_capture(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct refusal_text text = {0};
	int headers_only = 0;
	const struct bus_option options[] = {{"headers-only", 'b', &headers_only}};
	_cleanup_close_ int fd = -1;
	const char *name = NULL;
	struct device *d;
	int r = sd_bus_message_read(m, "s", &name);

	if (r >= 0) {
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r == 0) {
		r = broker_find_device(bus_broker(c), name, &d, &text);
	}
	if (r == 0) {
		r = permit(c, m, d, error);
		if (r != 0) {
			return r;
		}
		r = start(d, headers_only, &fd, &text);
	}
	if (r != 0) {
		return bus_fail_call(c, name ? name : "", "", error, r, &text);
	}
	bus_audit(c, AUDIT_CHANGE, d->name, d->lease->vm->name, "",
		headers_only ? "A capture of headers began." : "A capture began.");
	return sd_bus_reply_method_return(m, "h", fd);
}
