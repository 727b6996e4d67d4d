/* SPDX-License-Identifier: MIT */
#include "protocol/worker.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

struct shape {
	uint32_t type;
	enum worker_direction direction;
	size_t size;
	bool (*check)(const union worker_msg *m);
};

static bool check_state(const union worker_msg *m)
{
	return m->state.state < WORKER_STATE_COUNT_ && m->state.pad == 0;
}

static bool check_pong(const union worker_msg *m)
{
	return m->pong.state < WORKER_STATE_COUNT_;
}

static bool check_done(const union worker_msg *m)
{
	return m->done.reason < WORKER_DONE_COUNT_ &&
	       ascii_text_ok(m->done.detail, sizeof(m->done.detail));
}

static bool check_qmp(const union worker_msg *m)
{
	return m->qmp.status < QMP_STATUS_COUNT_ && m->qmp.vm_state < QMP_VM_COUNT_ &&
	       ascii_text_ok(m->qmp.text, sizeof(m->qmp.text));
}

static bool check_set_configuration(const union worker_msg *m)
{
	return m->set_configuration.value <= UINT8_MAX && m->set_configuration.pad == 0;
}

static bool check_claim(const union worker_msg *m)
{
	return m->claim.error <= 0;
}

static bool check_configured(const union worker_msg *m)
{
	return m->configured.error <= 0 && m->configured.pad == 0;
}

static bool check_held(const union worker_msg *m)
{
	return m->held.state < WORKER_STATE_COUNT_ && m->held.pad == 0;
}

static bool check_capture(const union worker_msg *m)
{
	return m->capture.bus <= UINT16_MAX && m->capture.device <= INT8_MAX &&
	       m->capture.headers_only <= 1 && m->capture.pad == 0;
}

static const struct shape shapes[] = {
	{WORKER_MSG_READY, WORKER_TO_BROKER, sizeof(struct worker_ready), NULL},
	{WORKER_MSG_STATE, WORKER_TO_BROKER, sizeof(struct worker_state_msg), check_state},
	{WORKER_MSG_PONG, WORKER_TO_BROKER, sizeof(struct worker_pong), check_pong},
	{WORKER_MSG_DONE, WORKER_TO_BROKER, sizeof(struct worker_done), check_done},
	{WORKER_MSG_QMP, WORKER_TO_BROKER, sizeof(struct worker_qmp), check_qmp},
	{WORKER_MSG_PING, BROKER_TO_WORKER, sizeof(struct worker_ping), NULL},
	{WORKER_MSG_DETACH, BROKER_TO_WORKER, sizeof(struct worker_detach), NULL},
	{WORKER_MSG_SET_CONFIGURATION, WORKER_TO_BROKER, sizeof(struct worker_set_configuration),
		check_set_configuration},
	{WORKER_MSG_CLAIM, WORKER_TO_BROKER, sizeof(struct worker_claim), check_claim},
	{WORKER_MSG_CONFIGURED, BROKER_TO_WORKER, sizeof(struct worker_configured),
		check_configured},
	{WORKER_MSG_UNPLUGGED, BROKER_TO_WORKER, sizeof(struct worker_unplugged), NULL},
	{WORKER_MSG_KEEP, BROKER_TO_WORKER, sizeof(struct worker_keep), NULL},
	{WORKER_MSG_ADOPT, BROKER_TO_WORKER, sizeof(struct worker_adopt), NULL},
	{WORKER_MSG_HELD, WORKER_TO_BROKER, sizeof(struct worker_held), check_held},
	{WORKER_MSG_CAPTURE, BROKER_TO_WORKER, sizeof(struct worker_capture), check_capture},
	{WORKER_MSG_PACE, BROKER_TO_WORKER, sizeof(struct worker_pace), NULL},
};

static const struct shape *shape_of(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (shapes[i].type == type) {
			return &shapes[i];
		}
	}
	return NULL;
}

int worker_msg_decode(
	enum worker_direction direction, const void *data, size_t size, union worker_msg *out)
{
	union worker_msg m = {0};
	const struct shape *s;

	if (size < sizeof(m.header) || size > sizeof(m)) {
		return -EBADMSG;
	}
	memcpy(&m, data, size);
	s = shape_of(m.header.type);
	if (!s || s->direction != direction || s->size != size || m.header.size != size) {
		return -EBADMSG;
	}
	if (s->check && !s->check(&m)) {
		return -EBADMSG;
	}
	*out = m;
	return 0;
}

size_t worker_msg_init(union worker_msg *msg, enum worker_msg_type type)
{
	const struct shape *s = shape_of(type);

	assert(s);
	memset(msg, 0, sizeof(*msg));
	msg->header.type = type;
	msg->header.size = (uint32_t)s->size;
	return s->size;
}

void worker_msg_text(char *field, size_t field_size, const char *text)
{
	size_t i;

	for (i = 0; i + 1 < field_size && text[i]; i++) {
		field[i] = text[i] >= 0x20 && text[i] <= 0x7e ? text[i] : '?';
	}
	memset(field + i, 0, field_size - i);
}

static const char *name_in(const char *const *names, size_t n, uint32_t value)
{
	return value < n ? names[value] : "unknown";
}

const char *worker_state_name(uint32_t state)
{
	static const char *const names[] = {
		"connecting", "attached", "configured", "flushing", "ejected"};

	static_assert(ARRAY_SIZE(names) == WORKER_STATE_COUNT_, "one name per state");
	return name_in(names, ARRAY_SIZE(names), state);
}

const char *worker_done_name(uint32_t reason)
{
	static const char *const names[] = {"detached", "peer-closed", "peer-violation",
		"device-lost", "broker-gone", "internal", "device-busy", "not-shown"};

	static_assert(ARRAY_SIZE(names) == WORKER_DONE_COUNT_, "one name per reason");
	return name_in(names, ARRAY_SIZE(names), reason);
}

const char *qmp_status_name(uint32_t status)
{
	static const char *const names[] = {
		"ok", "closed", "no-greeting", "bad-reply", "refused", "timeout"};

	static_assert(ARRAY_SIZE(names) == QMP_STATUS_COUNT_, "one name per status");
	return name_in(names, ARRAY_SIZE(names), status);
}
