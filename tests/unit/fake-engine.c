/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"

#include "base/clock.h"
#include "tests/unit/fake-engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct fake_transfer *of(struct transfer *t)
{
	return list_entry(t, struct fake_transfer, t);
}

static void on_completed(void *userdata, struct transfer *t)
{
	struct fake_engine *e = userdata;
	struct fake_transfer *f = of(t);

	assert_true(e->n_done < FAKE_DONE_MAX);
	/* It is out: so exactly once. */
	assert_false(list_empty(&f->link));
	assert_true(t->actual <= t->length);
	e->done[e->n_done] = f->number;
	e->status[e->n_done] = t->status;
	e->actual[e->n_done] = t->actual;
	e->n_done++;
	e->n_out--;
	list_remove(&f->link);
	if (e->look) {
		e->look(e, f);
	}
	free(t->data);
	free(f);
}

static void on_request_done(void *userdata, enum transfer_status status)
{
	struct fake_engine *e = userdata;

	e->n_answers++;
	e->answer = status;
}

static void on_lost(void *userdata, int error)
{
	struct fake_engine *e = userdata;

	assert_int_equal(error, ENODEV);
	e->n_lost++;
}

static const struct backend_sink_ops sink = {
	.completed = on_completed,
	.request_done = on_request_done,
	.lost = on_lost,
};

static void on_set_configuration(void *userdata, uint8_t value)
{
	struct fake_engine *e = userdata;

	e->asked_configuration = value;
}

static void on_busy(void *userdata, int interface)
{
	struct fake_engine *e = userdata;

	e->n_busy++;
}

static int stub_node(const char *options)
{
	uint8_t image[1024];
	size_t n = stub_image(options, image, sizeof(image));
	int fd = memfd_create("stub", MFD_CLOEXEC);

	assert_true(fd >= 0 && n <= sizeof(image));
	assert_int_equal(write(fd, image, n), n);
	return fd;
}

int fake_engine_start(
	struct fake_engine *e, const char *stub, size_t usbfs_memory, bool with_broker)
{
	struct backend_libusb_options o = {
		.device_fd = stub_node(stub),
		.interfaces = UINT32_MAX,
		.usbfs_memory = usbfs_memory,
		.may_configure = !with_broker,
		.listener = &e->listener,
		.userdata = e,
	};
	int interface = -1, r;

	*e = (struct fake_engine){.asked_configuration = -1, .listener.busy = on_busy};
	if (with_broker) {
		e->listener.set_configuration = on_set_configuration;
	}
	list_init(&e->out);
	assert_true(sd_event_new(&e->event) >= 0);
	o.event = e->event;
	assert_int_equal(backend_libusb_create(&o, &e->backend), 0);
	e->backend->sink = &sink;
	e->backend->sink_data = e;
	r = backend_libusb_open(e->backend, &interface);
	assert_true((r == -EBUSY) == (interface >= 0));
	return r;
}

void fake_engine_stop(struct fake_engine *e)
{
	assert_int_equal(e->n_out, 0);
	e->backend->ops->destroy(e->backend);
	sd_event_unref(e->event);
}

struct fake_transfer *fake_transfer_new(
	struct fake_engine *e, enum transfer_type type, uint8_t endpoint, uint32_t length)
{
	struct fake_transfer *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	list_init(&f->link);
	f->number = e->next_number++;
	f->t.type = (uint8_t)type;
	f->t.endpoint = endpoint;
	f->t.length = length;
	f->t.capacity = length;
	f->t.data = length > 0 ? malloc(length) : NULL;
	assert_true(length == 0 || f->t.data);
	if (length > 0) {
		memset(f->t.data, 0xa5, length);
	}
	return f;
}

void fake_engine_submit(struct fake_engine *e, struct fake_transfer *f)
{
	list_append(&e->out, &f->link);
	e->n_out++;
	e->backend->ops->submit(e->backend, &f->t);
}

void fake_engine_cancel(struct fake_engine *e, struct fake_transfer *f)
{
	f->cancelled = true;
	e->backend->ops->cancel(e->backend, &f->t);
}

/* A cancel may complete any transfer from within: each time from the beginning. */
void fake_engine_cancel_all(struct fake_engine *e)
{
	struct fake_transfer *f;

again:
	list_for_each (f, &e->out, link) {
		if (!f->cancelled) {
			fake_engine_cancel(e, f);
			goto again;
		}
	}
}

void fake_engine_settle(struct fake_engine *e, unsigned int n_answers)
{
	int64_t end = now_ms() + 10000;

	while (e->n_out > 0 || e->n_answers < n_answers) {
		assert_true(sd_event_run(e->event, 100000) >= 0);
		assert_true(now_ms() < end);
	}
	assert_int_equal(e->n_answers, n_answers);
}

void fake_engine_run(struct fake_engine *e, unsigned int ms)
{
	for (int64_t end = now_ms() + ms; now_ms() < end;) {
		assert_true(sd_event_run(e->event, 1000) >= 0);
	}
}

void fake_engine_set_alt(struct fake_engine *e, uint8_t interface, uint8_t alt)
{
	unsigned int n = e->n_answers + 1;

	e->backend->ops->set_interface(e->backend, interface, alt);
	while (e->n_answers < n) {
		assert_true(sd_event_run(e->event, 100000) >= 0);
	}
	assert_int_equal(e->answer, TRANSFER_OK);
}
