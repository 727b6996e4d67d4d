/* SPDX-License-Identifier: MIT */
#include "tests/unit/stick.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/test.h"
#include "usb/backend-disk.h"
#include "usb/bytes.h"
#include "usb/scsi.h"

#define POISON      0xa5
#define POISON_SIZE 64

static void completed(void *userdata, struct transfer *t)
{
	struct stick *s = userdata;
	struct piece *p = list_entry(t, struct piece, t);

	assert_false(p->done);
	assert_true(t->actual <= t->length);
	for (size_t i = 0; i < POISON_SIZE; i++) {
		assert_int_equal(p->data[t->length + i], POISON);
	}
	p->done = true;
	p->order = ++s->completed;
	s->in_flight--;
	t->submitted = false;
	if (s->on_complete) {
		s->on_complete(s, t);
	}
}

static void request_done(void *userdata, enum transfer_status status)
{
	struct stick *s = userdata;

	s->requests_done++;
	s->last_request_status = status;
}

static void ejected(void *userdata)
{
	((struct stick *)userdata)->ejected++;
}

static void lost(void *userdata, int error)
{
	fail();
}

static void quiesced(void *userdata, int error)
{
	struct stick *s = userdata;

	s->quiesced++;
	s->quiesce_error = error;
}

static const struct backend_sink_ops sink = {
	.completed = completed,
	.request_done = request_done,
	.ejected = ejected,
	.lost = lost,
	.quiesced = quiesced,
};

void stick_open(struct stick *s, int image, bool read_only, enum usb_speed speed)
{
	struct backend_disk_options o = {
		.image_fd = fcntl(image, F_DUPFD_CLOEXEC, 3),
		.read_only = read_only,
		.speed = speed,
		.serial = STICK_SERIAL,
	};

	char why[128];

	*s = (struct stick){.image = image};
	assert_true(sd_event_new(&s->event) >= 0);
	o.event = s->event;
	assert_int_equal(backend_disk_create(&o, &s->backend), 0);
	assert_int_equal(backend_disk_open(s->backend, why, sizeof(why)), 0);
	s->backend->sink = &sink;
	s->backend->sink_data = s;
}

void stick_close(struct stick *s)
{
	s->backend->ops->destroy(s->backend);
	sd_event_unref(s->event);
	close(s->image);
}

int stick_image(uint64_t size)
{
	int fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint8_t block[512];

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	for (uint64_t i = 0; i < size / 512; i++) {
		for (size_t k = 0; k < sizeof(block); k += 8) {
			put_be64(block + k, i);
		}
		assert_int_equal(pwrite(fd, block, 512, (off_t)(i * 512)), 512);
	}
	return fd;
}

void piece_init(struct piece *p, uint8_t endpoint, uint32_t length)
{
	static uint64_t id;

	*p = (struct piece){
		.t =
			{
				.id = ++id,
				.type = (endpoint & 0x7f) ? TRANSFER_BULK : TRANSFER_CONTROL,
				.endpoint = endpoint,
				.length = length,
				.capacity = length,
			},
	};
	list_init(&p->t.link);
	list_init(&p->t.backend);
	p->data = malloc(length + POISON_SIZE);
	assert_non_null(p->data);
	memset(p->data, POISON, length + POISON_SIZE);
	p->t.data = length > 0 ? p->data : NULL;
}

void piece_free(struct piece *p)
{
	free(p->data);
}

void stick_submit(struct stick *s, struct piece *p)
{
	s->in_flight++;
	p->t.submitted = true;
	s->backend->ops->submit(s->backend, &p->t);
}

static void turn(struct stick *s, const bool *flag, const unsigned *counter, unsigned n)
{
	for (int i = 0; i < 500 && !(flag ? *flag : *counter >= n); i++) {
		assert_true(sd_event_run(s->event, 10000) >= 0);
	}
}

void stick_wait(struct stick *s, struct piece *p)
{
	turn(s, &p->done, NULL, 0);
	assert_true(p->done);
}

void stick_wait_count(struct stick *s, const unsigned *counter, unsigned n)
{
	turn(s, NULL, counter, n);
	assert_true(*counter >= n);
}

void stick_settle(struct stick *s, unsigned ms)
{
	while (sd_event_run(s->event, (uint64_t)ms * 1000) > 0) {
	}
}

static int bulk(
	struct stick *s, uint8_t endpoint, void *data, uint32_t length, uint32_t *actual_out)
{
	struct piece p;
	int status;

	piece_init(&p, endpoint, length);
	if (!(endpoint & 0x80) && length > 0) {
		memcpy(p.data, data, length);
	}
	stick_submit(s, &p);
	stick_wait(s, &p);
	status = p.t.status;
	if ((endpoint & 0x80) && p.t.actual > 0) {
		memcpy(data, p.data, p.t.actual);
	}
	if (actual_out) {
		*actual_out = p.t.actual;
	}
	piece_free(&p);
	return status;
}

int stick_bulk_out(struct stick *s, const void *data, uint32_t length, uint32_t *actual_out)
{
	return bulk(s, 0x02, (void *)(uintptr_t)data, length, actual_out);
}

int stick_bulk_in(struct stick *s, void *data, uint32_t length, uint32_t *actual_out)
{
	return bulk(s, 0x81, data, length, actual_out);
}

int stick_control(struct stick *s, uint8_t type, uint8_t request, uint16_t value, uint16_t index,
	void *data, uint16_t length, uint32_t *actual_out)
{
	struct piece p;
	int status;

	piece_init(&p, type & 0x80, length);
	p.t.setup = (struct usb_setup){type, request, value, index, length};
	if (!(type & 0x80) && length > 0) {
		memcpy(p.data, data, length);
	}
	stick_submit(s, &p);
	stick_wait(s, &p);
	status = p.t.status;
	if ((type & 0x80) && p.t.actual > 0) {
		memcpy(data, p.data, p.t.actual);
	}
	if (actual_out) {
		*actual_out = p.t.actual;
	}
	piece_free(&p);
	return status;
}

void stick_clear_halt(struct stick *s, uint8_t endpoint)
{
	assert_int_equal(stick_control(s, 0x02, 1, 0, endpoint, NULL, 0, NULL), TRANSFER_OK);
}

void stick_cbw(struct stick *s, uint8_t *cbw, uint32_t length, bool in, const uint8_t *cdb,
	uint8_t cdb_size)
{
	memset(cbw, 0, 31);
	memcpy(cbw, "USBC", 4);
	put_le32(cbw + 4, ++s->tag);
	put_le32(cbw + 8, length);
	cbw[12] = in ? 0x80 : 0;
	cbw[14] = cdb_size;
	memcpy(cbw + 15, cdb, cdb_size);
}

struct csw stick_csw(struct stick *s)
{
	uint8_t b[64];
	uint32_t n;
	int status = stick_bulk_in(s, b, 13, &n);

	if (status == TRANSFER_STALL) {
		stick_clear_halt(s, 0x81);
		status = stick_bulk_in(s, b, 13, &n);
	}
	assert_int_equal(status, TRANSFER_OK);
	assert_int_equal(n, 13);
	assert_memory_equal(b, "USBS", 4);
	assert_int_equal(get_le32(b + 4), s->tag);
	return (struct csw){get_le32(b + 4), get_le32(b + 8), b[12]};
}

int stick_command(struct stick *s, const uint8_t *cdb, uint8_t cdb_size, bool in, void *data,
	uint32_t length, uint32_t *actual_out)
{
	uint8_t cbw[31];
	uint32_t n = 0;
	struct csw csw;
	int status = TRANSFER_OK;

	stick_cbw(s, cbw, length, in, cdb, cdb_size);
	assert_int_equal(stick_bulk_out(s, cbw, 31, NULL), TRANSFER_OK);
	if (length > 0) {
		status = in ? stick_bulk_in(s, data, length, &n)
			    : stick_bulk_out(s, data, length, &n);
	}
	if (status == TRANSFER_STALL) {
		stick_clear_halt(s, in ? 0x81 : 0x02);
	} else {
		assert_int_equal(status, TRANSFER_OK);
	}
	csw = stick_csw(s);
	if (csw.status == 0) {
		assert_int_equal(csw.residue, length - n);
	}
	if (actual_out) {
		*actual_out = n;
	}
	return csw.status;
}

uint32_t stick_sense(struct stick *s)
{
	static const uint8_t cdb[6] = {0x03, 0, 0, 0, 18};
	uint8_t d[18];
	uint32_t n;

	assert_int_equal(stick_command(s, cdb, 6, true, d, 18, &n), 0);
	assert_int_equal(n, 18);
	assert_int_equal(d[0], 0x70);
	return SCSI_SENSE(d[2], d[12], d[13]);
}

void stick_ready(struct stick *s)
{
	static const uint8_t cdb[6] = {0};

	for (int i = 0; i < 2; i++) {
		if (stick_command(s, cdb, 6, false, NULL, 0, NULL) == 0) {
			return;
		}
	}
	fail();
}
