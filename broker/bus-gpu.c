/* SPDX-License-Identifier: MIT
 * org.devbroker.Gpu1: the GPU of a VM, on the VM's object.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/gpu.h"
#include "broker/vm.h"
#include "protocol/allowance.h"

/* What a guest shows is its owner's business, or an administrator's. */
static int check_caller(sd_bus_message *m, struct vm *vm, sd_bus_error *error)
{
	struct bus_connection *c = bus_connection_of(vm->broker, sd_bus_message_get_bus(m));

	return c ? bus_permit_vm(c, m, vm, error) : -EACCES;
}

int bus_gpu_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error)
{
	void *vm;
	int r = bus_vm_find(bus, path, interface, userdata, &vm, error);

	if (r <= 0 || !((struct vm *)vm)->gpu) {
		return r < 0 ? r : 0;
	}
	*found_out = vm;
	return 1;
}

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	struct gpu_status s;

	gpu_status(vm->gpu, &s);
	if (strcmp(property, "Detail") == 0 && !bus_sees_vm(vm->broker, bus, vm)) {
		return sd_bus_message_append(reply, "s", "");
	}
	return sd_bus_message_append(reply, "s",
		strcmp(property, "State") == 0      ? gpu_state_name(s.state)
		: strcmp(property, "Socket") == 0   ? s.socket
		: strcmp(property, "DrawnBy") == 0  ? s.counters.renderer
		: strcmp(property, "TimeFrom") == 0 ? s.time_from
						    : s.detail);
}

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	struct gpu_status s = {0};
	const struct parent_msg *c = &s.counters;

	gpu_status(vm->gpu, &s);
	const struct {
		const char *name;
		uint64_t number;
	} numbers[] = {
		{"MemoryMax", s.memory_max},
		{"Memory", c->memory},
		{"MemoryUncharged", c->uncharged},
		{"Resources", c->resources},
		{"Scanouts", c->scanouts},
		{"Frames", c->frames},
		{"FramesMerged", c->merged},
		{"Bytes", c->bytes},
		{"Commands", c->commands},
		{"Errors", c->errors},
		{"Renderers", c->renderers},
		{"Display", c->display},
		{"Contexts", c->contexts},
		{"Fences", c->fences},
		{"Refused", c->refused},
		{"Poisoned", c->poisoned},
		{"Hangs", c->hangs},
		{"Quarantined", c->quarantined},
		{"CpuUsec", c->cpu_ns / 1000},
		{"HeardUsec", s.heard_usec},
		{"FramesPerSecond", s.frames_per_sec},
		{"FrameRateMax", vm->gpu_limits.frame_rate},
		{"ContextsMax", vm->gpu_limits.contexts},
		{"ResourcesMax", vm->gpu_limits.resources},
		{"TimeUsec", s.used_ns / 1000},
		{"TimePermille", s.permille},
		{"WaitedUsec", s.page ? atomic_load(&s.page->waited_ns) / 1000 : 0},
		{"FramesDelayed", s.page ? atomic_load(&s.page->frames_delayed) : 0},
		{"RendererBytes", s.rss},
		{"DeviceBytes", s.device_memory},
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (strcmp(numbers[i].name, property) == 0) {
			return sd_bus_message_append(reply, "t", numbers[i].number);
		}
	}
	return -ENOENT;
}

static int get_share(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	char text[32];

	return sd_bus_message_append(
		reply, "s", gpu_share_print(&vm->gpu_limits, text, sizeof(text)));
}

/* A renderer's word: any bytes, and different ones each time. */
static int append_context(sd_bus_message *reply, const struct allowance_context *c)
{
	char name[ALLOWANCE_NAME_SIZE], shown[4 * ALLOWANCE_NAME_SIZE + 4];
	uint32_t id = atomic_load(&c->id);

	if (id == 0) {
		return 0;
	}
	memcpy(name, c->name, sizeof(name));
	return sd_bus_message_append(reply, "(ust)", id,
		log_escape(name, strnlen(name, sizeof(name)), shown, sizeof(shown)),
		atomic_load(&c->gpu_ns) / 1000);
}

static int get_contexts(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	struct gpu_status s;
	int r = sd_bus_message_open_container(reply, 'a', "(ust)");

	gpu_status(vm->gpu, &s);
	/* What programs in the guest call themselves is its owner's business. */
	if (s.page && bus_sees_vm(vm->broker, bus, vm)) {
		for (size_t i = 0; r >= 0 && i < ALLOWANCE_CONTEXTS; i++) {
			r = append_context(reply, &s.page->contexts[i]);
		}
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int on_set_display(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct vm *vm = userdata;
	struct refusal_text text = {0};
	uint32_t scanout = 0, width = 0, height = 0;
	int r = check_caller(m, vm, error);

	if (r != 0) {
		return r;
	}
	r = sd_bus_message_read(m, "uuu", &scanout, &width, &height);
	if (r < 0) {
		return r;
	}
	r = gpu_set_display(vm->gpu, scanout, width, height, &text);
	return r != 0 ? bus_fail(error, r, &text) : sd_bus_reply_method_return(m, NULL);
}

static int on_allow(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct vm *vm = userdata;
	struct refusal_text text = {0};
	int r = gpu_allow(vm->gpu, &text);

	return r != 0 ? bus_fail(error, r, &text) : sd_bus_reply_method_return(m, NULL);
}

static int on_reserve(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct vm *vm = userdata;
	_cleanup_close_ int fd = -1;
	struct refusal_text text = {0};
	uint64_t bytes = 0;
	int r = check_caller(m, vm, error);

	if (r != 0) {
		return r;
	}
	r = sd_bus_message_read(m, "t", &bytes);
	if (r < 0) {
		return r;
	}
	r = gpu_reserve(vm->gpu, bytes, &fd, &text);
	return r != 0 ? bus_fail(error, r, &text) : sd_bus_reply_method_return(m, "h", fd);
}

/* One that waits for its picture; the connection may be gone before it comes. */
struct shot {
	struct gpu_waiter waiter;
	sd_bus_message *call;
};

static void on_picture(struct gpu_waiter *w, const struct gpu_picture *picture)
{
	struct shot *s = list_entry(w, struct shot, waiter);

	if (picture->error == 0) {
		sd_bus_reply_method_return(
			s->call, "huu", picture->fd, picture->width, picture->height);
	} else {
		sd_bus_reply_method_errorf(s->call,
			refusal_dbus_name(
				picture->error == -ENOENT ? REFUSAL_NOT_FOUND : REFUSAL_VM_GONE),
			"%s\n%s",
			picture->error == -ENOENT ? "that scanout shows nothing"
						  : "the GPU went away meanwhile",
			"See what is shown: devbroker gpu show VM");
	}
	sd_bus_message_unref(s->call);
	free(s);
}

static int on_screenshot(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct vm *vm = userdata;
	struct refusal_text text = {0};
	uint32_t scanout = 0;
	struct shot *s;
	int r = check_caller(m, vm, error);

	if (r != 0) {
		return r;
	}
	r = sd_bus_message_read(m, "u", &scanout);
	if (r < 0) {
		return r;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		return -ENOMEM;
	}
	s->waiter.done = on_picture;
	s->call = sd_bus_message_ref(m);
	list_init(&s->waiter.link);
	r = gpu_screenshot(vm->gpu, scanout, &s->waiter, &text);
	if (r != 0) {
		sd_bus_message_unref(s->call);
		free(s);
		return bus_fail(error, r, &text);
	}
	return 1;
}

#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE

const sd_bus_vtable bus_gpu_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("State", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("Detail", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("Socket", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("MemoryMax", "t", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("Memory", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("MemoryUncharged", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Resources", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Scanouts", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Frames", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("FramesMerged", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Bytes", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Commands", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Errors", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Renderers", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Display", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("DrawnBy", "s", get_text, 0, 0),
	SD_BUS_PROPERTY("Contexts", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Fences", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Refused", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Poisoned", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Hangs", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Quarantined", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("CpuUsec", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("HeardUsec", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("Share", "s", get_share, 0, CHANGES),
	SD_BUS_PROPERTY("FrameRateMax", "t", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("ContextsMax", "t", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("ResourcesMax", "t", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("FramesPerSecond", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("FramesDelayed", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("TimeUsec", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("TimePermille", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("WaitedUsec", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("RendererBytes", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("DeviceBytes", "t", get_number, 0, 0),
	SD_BUS_PROPERTY("TimeFrom", "s", get_text, 0, 0),
	SD_BUS_PROPERTY("ContextTimes", "a(ust)", get_contexts, 0, 0),
	SD_BUS_METHOD_WITH_ARGS(
		"Allow", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_allow, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("SetDisplay", SD_BUS_ARGS("u", scanout, "u", width, "u", height),
		SD_BUS_NO_RESULT, on_set_display, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Reserve", SD_BUS_ARGS("t", bytes), SD_BUS_RESULT("h", reservation),
		on_reserve, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Screenshot", SD_BUS_ARGS("u", scanout),
		SD_BUS_RESULT("h", pixels, "u", width, "u", height), on_screenshot,
		SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};
