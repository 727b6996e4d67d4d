/* SPDX-License-Identifier: MIT */
#include "broker/vm-record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/record.h"
#include "broker/vm-options.h"
#include "broker/vm.h"

struct vm_record {
	char name[NAME_MAX_LENGTH + 1];
	char qmp[108];
	char bus[64];
	uint32_t devices;
	uint64_t bytes;
	uint32_t transfers;
	uint64_t bandwidth;
	uint64_t transfer_rate;
	uint64_t gpu_memory;
	char gpu_group[64];
	uint32_t gpu_virgl;
	char render_node[64];
	char gpu_share[24];
	uint32_t gpu_frame_rate, gpu_contexts, gpu_resources;
	char owners[OWNERS_MAX * 11]; /* numbers with blanks between them */
	uint32_t slots;
	char slot_group[64];
	/* Of an export: where it listens. */
	char listen[STREAM_ADDRESS_TEXT];
	bool keep;
};

static void print_owners(const struct owners *o, char *out, size_t size)
{
	size_t at = 0;

	out[0] = '\0';
	for (uint32_t i = 0; i < o->n && at < size; i++) {
		at += (size_t)snprintf(out + at, size - at, "%s%u", at ? " " : "", o->uids[i]);
	}
}

static void parse_owners(const char *text, struct owners *out)
{
	char word[12];
	uint64_t uid;

	for (const char *p = text; *p; p += strcspn(p, " "), p += strspn(p, " ")) {
		snprintf(word, sizeof(word), "%.*s", (int)MIN(strcspn(p, " "), 11u), p);
		if (parse_u64(word, 0, UINT32_MAX - 1, &uid) == 0) {
			_unused_ bool fits = owners_add(out, (uid_t)uid);
		}
	}
}

static bool record_ok(const char *name, const void *record)
{
	const struct vm_record *r = record;
	struct gpu_limits any;

	return strcmp(r->name, name) == 0 &&
	       (config_name_ok(name) || (r->listen[0] && strncmp(name, "export:", 7) == 0)) &&
	       r->slots <= SLOTS_MAX && r->gpu_virgl <= GPU_VIRGL_HARDWARE &&
	       gpu_share_parse(r->gpu_share, &any) == 0;
}

static const struct record_field fields[] = {
	RECORD_TEXT_FIELD("name", vm_record, name),
	RECORD_TEXT_FIELD("qmp", vm_record, qmp),
	RECORD_TEXT_FIELD("bus", vm_record, bus),
	RECORD_U32_FIELD("devices", vm_record, devices),
	RECORD_U64_FIELD("bytes-in-flight", vm_record, bytes),
	RECORD_U32_FIELD("transfers-in-flight", vm_record, transfers),
	RECORD_U64_FIELD("bandwidth", vm_record, bandwidth),
	RECORD_U64_FIELD("transfers-per-second", vm_record, transfer_rate),
	RECORD_U64_FIELD("gpu-memory", vm_record, gpu_memory),
	RECORD_TEXT_FIELD("gpu-group", vm_record, gpu_group),
	RECORD_U32_FIELD("gpu-virgl", vm_record, gpu_virgl),
	RECORD_TEXT_FIELD("render-node", vm_record, render_node),
	RECORD_TEXT_FIELD("gpu-share", vm_record, gpu_share),
	RECORD_U32_FIELD("gpu-frame-rate", vm_record, gpu_frame_rate),
	RECORD_U32_FIELD("gpu-contexts", vm_record, gpu_contexts),
	RECORD_U32_FIELD("gpu-resources", vm_record, gpu_resources),
	RECORD_TEXT_FIELD("owners", vm_record, owners),
	RECORD_U32_FIELD("slots", vm_record, slots),
	RECORD_TEXT_FIELD("slot-group", vm_record, slot_group),
	RECORD_TEXT_FIELD("listen", vm_record, listen),
	RECORD_BOOL_FIELD("keep", vm_record, keep),
};

static const struct record_kind kind = {
	.directory = "vms",
	.header = "devbroker-vm 1",
	.fields = fields,
	.n_fields = ARRAY_SIZE(fields),
	.size = sizeof(struct vm_record),
	.ok = record_ok,
};

static void note_ways(const struct vm_options *o, struct vm_record *r)
{
	char text[STREAM_ADDRESS_TEXT];

	r->slots = o->ways->slots;
	snprintf(r->slot_group, sizeof(r->slot_group), "%s", o->ways->group ? o->ways->group : "");
	if (o->is_export) {
		stream_address_print(&o->ways->streams[0].address, text);
		log_escape(text, strlen(text), r->listen, sizeof(r->listen));
		r->keep = o->keep;
	}
}

static void note_limits(const struct vm *vm, struct vm_record *r)
{
	const struct gpu_limits *l = &vm->gpu_limits;

	r->devices = vm->limits.devices;
	r->bytes = vm->limits.bytes_in_flight;
	r->transfers = vm->limits.transfers_in_flight;
	r->bandwidth = vm->limits.bandwidth;
	r->transfer_rate = vm->limits.transfer_rate;
	r->gpu_memory = vm->gpu_memory.limit;
	gpu_share_print(l, r->gpu_share, sizeof(r->gpu_share));
	r->gpu_frame_rate = l->frame_rate;
	r->gpu_contexts = l->contexts;
	r->gpu_resources = l->resources;
}

void vm_note(const struct vm *vm, const struct vm_options *o)
{
	struct vm_record r = {
		.gpu_virgl = o->gpu_virgl,
	};
	int e;

	note_limits(vm, &r);
	snprintf(r.name, sizeof(r.name), "%s", vm->name);
	snprintf(r.qmp, sizeof(r.qmp), "%s", vm->qmp ? vm->qmp : "");
	snprintf(r.bus, sizeof(r.bus), "%s", vm->bus);
	snprintf(r.gpu_group, sizeof(r.gpu_group), "%s", o->gpu_group ? o->gpu_group : "");
	snprintf(r.render_node, sizeof(r.render_node), "%s", o->render_node ? o->render_node : "");
	if (o->ways) {
		note_ways(o, &r);
	}
	print_owners(&vm->owners, r.owners, sizeof(r.owners));
	e = record_write(vm->broker->run_dir, &kind, r.name, &r);
	if (e < 0) {
		log_warn("vm %s: can't write it down: %s. Another devbrokerd will not know it.",
			vm->name, strerror(-e));
	}
}

void vm_forget_note(const struct vm *vm)
{
	record_remove(vm->broker->run_dir, &kind, vm->name);
}

struct wanted {
	const char *name;
	struct vm_record record;
	bool found;
};

static void on_wanted(void *userdata, const char *name, const void *record)
{
	struct wanted *w = userdata;

	if (strcmp(name, w->name) == 0) {
		w->record = *(const struct vm_record *)record;
		w->found = true;
	}
}

void vm_note_limits(const struct vm *vm)
{
	struct wanted w = {.name = vm->name};
	int e = record_each(vm->broker->run_dir, &kind, on_wanted, &w);

	if (e == 0 && !w.found) {
		e = -ENOENT;
	}
	if (e == 0) {
		note_limits(vm, &w.record);
		e = record_write(vm->broker->run_dir, &kind, vm->name, &w.record);
	}
	if (e < 0) {
		log_warn("vm %s: can't write its limits down: %s. Another devbrokerd will use the "
			 "old ones.",
			vm->name, strerror(-e));
	}
}

/* false: it is reached by QMP. */
static bool read_ways(const struct vm_record *r, struct config_ways *ways, int *given_out)
{
	struct config_stream *s = &ways->streams[0];

	ways->slots = r->slots;
	ways->group = r->slot_group[0] ? (char *)r->slot_group : NULL;
	*given_out = 0;
	if (r->listen[0]) {
		ways->n_streams = 1;
		s->listens = true;
		/* What a client gave is gone: a path is only shown, and never opened. */
		if (stream_address_parse(r->listen, &s->address) < 0 ||
			stream_address_is_unix(&s->address)) {
			*given_out = -1;
		}
	}
	return ways->slots > 0 || ways->n_streams > 0;
}

static void on_record(void *userdata, const char *name, const void *record)
{
	const struct vm_record *r = record;
	struct broker *b = userdata;
	struct owners owners = {0};
	struct config_ways ways = {0};
	int given;
	bool has_ways = read_ways(r, &ways, &given);
	struct vm_options o = {
		.owners = &owners,
		.name = r->name,
		.qmp = has_ways ? NULL : r->qmp,
		.ways = has_ways ? &ways : NULL,
		.is_export = r->listen[0],
		.keep = r->keep,
		.listen_fd = given < 0 ? &given : NULL,
		.bus = r->bus[0] ? r->bus : NULL,
		.limits = {r->devices, r->bytes, r->transfers, r->bandwidth, r->transfer_rate},
		.gpu_memory = r->gpu_memory,
		.gpu_group = r->gpu_group[0] ? r->gpu_group : NULL,
		.gpu_virgl = (enum gpu_virgl)r->gpu_virgl,
		.render_node = r->render_node[0] ? r->render_node : NULL,
		.gpu_limits = {.frame_rate = r->gpu_frame_rate,
			.contexts = r->gpu_contexts,
			.resources = r->gpu_resources},
	};
	struct refusal_text text = {0};
	struct vm *vm;
	int e;

	if (broker_vm_named(b, name)) {
		return;
	}
	parse_owners(r->owners, &owners);
	/* It is one: record_ok. */
	_unused_ int parsed = gpu_share_parse(r->gpu_share, &o.gpu_limits);

	e = quota_limits_check(&o.limits, &text);
	if (e == 0) {
		e = vm_add(b, &o, &vm, &text);
	}
	if (e != 0) {
		log_warn("vm %s: an earlier devbrokerd knew it, and it can't be had again: %s",
			name, e < 0 ? strerror(-e) : text.sentence);
	}
}

void vm_restore_all(struct broker *b)
{
	int e = record_each(b->run_dir, &kind, on_record, b);

	if (e < 0) {
		log_warn("devbrokerd: can't read which VMs an earlier one knew: %s", strerror(-e));
	}
}
