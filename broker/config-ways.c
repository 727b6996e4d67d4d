/* SPDX-License-Identifier: MIT
 * [usb] of a VM: slots= socket-group= stream= listen=.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "broker/config-internal.h"

static struct config_ways *ways_of(void *target)
{
	return &((struct config_target *)target)->vm->ways;
}

int config_ways_set_slots(void *target, const char *value, const struct config_place *place)
{
	char shown[200];
	uint64_t n;

	if (parse_u64(value, 1, SLOTS_MAX, &n) < 0) {
		return config_refuse(place, "slots=%s is not a number from 1 to %d",
			log_escape(value, strlen(value), shown, sizeof(shown)), SLOTS_MAX);
	}
	ways_of(target)->slots = (uint32_t)n;
	return 0;
}

int config_ways_set_group(void *target, const char *value, const struct config_place *place)
{
	struct config_ways *w = ways_of(target);
	char shown[200];

	if (!config_name_ok(value)) {
		return config_refuse(place, "socket-group=%s is no name of a group",
			log_escape(value, strlen(value), shown, sizeof(shown)));
	}
	w->group = strdup(value);
	return w->group ? 0 : -ENOMEM;
}

static int add(void *target, const char *key, const char *value, bool listens,
	const struct config_place *place)
{
	const struct config *c = ((struct config_target *)target)->config;
	struct config_ways *w = ways_of(target);
	struct config_stream *s = &w->streams[w->n_streams];
	char shown[200];

	log_escape(value, strlen(value), shown, sizeof(shown));
	if (w->n_streams >= STREAMS_MAX) {
		return config_refuse(
			place, "there are more than %d of stream= and listen=", STREAMS_MAX);
	}
	if (stream_address_parse(value, &s->address) < 0) {
		return config_refuse(place,
			"%s=%s is neither unix:PATH nor tcp:ADDRESS:PORT (as in "
			"tcp:127.0.0.1:4000; no names of hosts)",
			key, shown);
	}
	if (!stream_address_is_local(&s->address) && !c->usb.allow_remote) {
		return config_refuse(place,
			"%s=%s is not on this host alone: usbredir has neither authentication nor "
			"encryption; use a tunnel, or write allow-remote=yes into [usb] of "
			"devbroker.conf",
			key, shown);
	}
	s->listens = listens;
	w->n_streams++;
	return 0;
}

int config_ways_set_stream(void *target, const char *value, const struct config_place *place)
{
	return add(target, "stream", value, false, place);
}

int config_ways_set_listen(void *target, const char *value, const struct config_place *place)
{
	return add(target, "listen", value, true, place);
}

int config_ways_check(const struct config_vm *vm, const struct config_place *place)
{
	bool ways = vm->ways.slots > 0 || vm->ways.n_streams > 0;

	if (!vm->qmp && !ways) {
		return config_refuse(place,
			"a VM needs a way to be reached: qmp= of [vm], or slots=, stream= or "
			"listen= of [usb]");
	}
	if (vm->qmp && ways) {
		return config_refuse(place,
			"qmp= of [vm] and the ways of [usb] don't go together: a VM is reached "
			"either by QMP or by streams");
	}
	return 0;
}
