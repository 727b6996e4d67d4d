/* SPDX-License-Identifier: MIT
 *
 * A stream is a row of commands, each with a header of one dword: what it is (8 bits), which kind
 * of object it is about (8), and how many dwords follow (16). The numbers are those of
 * virglrenderer's protocol; only those that make or end something are looked into. The renderer
 * checks the rest of each command itself, and stops a stream at the first that it doesn't
 * understand.
 *
 * Two walks: the first knows nothing of what there is and says how much a buffer can make at most;
 * the second, when that has been charged, does what the renderer does. So nothing has to be taken
 * back, and a buffer without such commands is walked over once.
 */
#include "gpu/submit-check.h"

#include <errno.h>

#include "base/checked.h"
#include "gpu/virgl.h"

enum {
	CREATE_OBJECT = 1,
	DESTROY_OBJECT = 3,
	DRAW = 8,
	BLIT = 16,
	COPY_REGION = 17,
	SET_SUB_CONTEXT = 28,
	CREATE_SUB_CONTEXT = 29,
	DESTROY_SUB_CONTEXT = 30,
	LAUNCH_GRID = 37,
	CLEAR_TEXTURE = 47,
	PIPE_RESOURCE_CREATE = 48,
	PIPE_RESOURCE_SET_TYPE = 49,
	LINK_SHADER = 52,
	LAST_COMMAND = LINK_SHADER, /* behind it are video codecs, which are never there */
};

enum { OBJECT_SHADER = 4, OBJECT_LAST = 11 };
enum { BLOB_DWORDS = 11, SHADER_DWORDS = 5 };
#define SHADER_CONTINUED (1U << 31)

/* What each kind of object takes, apart from what comes with it. */
static uint64_t object_cost(uint32_t object, uint32_t length)
{
	return (object == OBJECT_SHADER ? SUBMIT_SHADER_BYTES : SUBMIT_OBJECT_BYTES) +
	       4 * (uint64_t)length;
}

static uint64_t blob_cost(const uint32_t *d)
{
	const struct virgl_resource r = {.id = 1,
		.target = d[1],
		.format = d[2],
		.bind = d[3],
		.width = d[4],
		.height = d[5],
		.depth = d[6],
		.array_size = d[7],
		.last_level = d[8],
		.nr_samples = d[9],
		.flags = d[10]};

	return virgl_resource_bytes(&r);
}

/* Adds to *out; NULL or why it can't be. */
static const char *check_command(
	const uint32_t *d, uint32_t command, uint32_t length, struct submit_demand *out)
{
	uint32_t object = d[0] >> 8 & 0xff;
	uint64_t bytes;

	switch (command) {
	case CREATE_OBJECT:
		if (length < (object == OBJECT_SHADER ? SHADER_DWORDS : 1) || object == 0 ||
			object > OBJECT_LAST) {
			return "an object that there can't be";
		}
		out->bytes += object_cost(object, length);
		out->objects++;
		break;
	case CREATE_SUB_CONTEXT:
		out->bytes += SUBMIT_CONTEXT_BYTES;
		out->objects++;
		out->subs++;
		break;
	case PIPE_RESOURCE_CREATE:
		if (length < BLOB_DWORDS) {
			return "storage without its size";
		}
		bytes = blob_cost(d);
		if (bytes == 0 || !u64_add(out->bytes, bytes, &out->bytes)) {
			return "storage that there can't be";
		}
		out->objects++;
		break;
	case SET_SUB_CONTEXT:
		/* Mesa's buffers begin with it, and most have nothing else of interest. */
		out->changes = out->changes || out->chooses;
		out->chooses = true;
		out->sub = length > 0 ? d[1] : 0;
		return length < 1 ? "no sub-context" : NULL;
	case PIPE_RESOURCE_SET_TYPE:
		return "a type for storage that is not the renderer's";
	default:
		break;
	}
	out->changes = true;
	return length < 1 ? "a command without its handle" : NULL;
}

static bool is_of_interest(uint32_t command)
{
	return command == CREATE_OBJECT || command == DESTROY_OBJECT ||
	       (command >= SET_SUB_CONTEXT && command <= DESTROY_SUB_CONTEXT) ||
	       command == PIPE_RESOURCE_CREATE || command == PIPE_RESOURCE_SET_TYPE;
}

/* A shader when it is made, and a program with all of the state that it is drawn with when it first
 * is. */
static bool is_heavy(uint32_t header)
{
	switch (header & 0xff) {
	case CREATE_OBJECT:
		return (header >> 8 & 0xff) == OBJECT_SHADER;
	case DRAW:
	case BLIT:
	case COPY_REGION:
	case LAUNCH_GRID:
	case CLEAR_TEXTURE:
	case LINK_SHADER:
		return true;
	default:
		return false;
	}
}

int submit_check(
	const uint32_t *dwords, uint32_t n, struct submit_demand *out, const char **why_out)
{
	*out = (struct submit_demand){0};
	for (uint32_t at = 0, length; at < n; at += 1 + length) {
		uint32_t command = dwords[at] & 0xff;

		length = dwords[at] >> 16;
		*why_out = length >= n - at         ? "a command that ends behind the buffer"
			   : command > LAST_COMMAND ? "a command that is not known"
			   : is_of_interest(command)
				   ? check_command(&dwords[at], command, length, out)
				   : NULL;
		if (*why_out) {
			return -EINVAL;
		}
		out->heavy += is_heavy(dwords[at]);
	}
	return 0;
}

uint32_t submit_part(const uint32_t *dwords, uint32_t n_dwords, uint32_t n)
{
	uint32_t at = 0;

	while (at < n_dwords && n > 0) {
		n -= is_heavy(dwords[at]);
		at += 1 + (dwords[at] >> 16);
	}
	return at;
}

static struct object_key plain_key(const struct submit_state *s, uint32_t handle)
{
	return (struct object_key){s->owner, s->current_sub, OBJECT_PLAIN, handle};
}

static struct object_key sub_key(const struct submit_state *s, uint32_t sub)
{
	return (struct object_key){s->owner, 0, OBJECT_SUB_CONTEXT, sub};
}

/* What is applied of a demand. */
struct walk {
	struct submit_state *s;
	struct objects *objects;
	struct budget *budget;
	uint64_t bytes; /* charged and used */
};

static void choose_sub(struct walk *w, uint32_t sub)
{
	const struct object_key key = sub_key(w->s, sub);

	if (sub == 0 || objects_have(w->objects, &key)) {
		w->s->current_sub = sub;
	}
}

static void create_object(struct walk *w, const uint32_t *d, uint32_t length)
{
	const struct object_key key = plain_key(w->s, d[1]);
	uint32_t object = d[0] >> 8 & 0xff;
	bool more = object == OBJECT_SHADER && d[3] & SHADER_CONTINUED;
	uint64_t cost = object_cost(object, length);

	objects_put(w->objects, &w->s->first_object, &key, cost, more, w->budget);
	w->bytes += cost;
}

/* The first sub-context, 0, is there from the beginning. */
static void create_sub(struct walk *w, uint32_t sub)
{
	const struct object_key key = sub_key(w->s, sub);

	if (sub != 0 && !objects_have(w->objects, &key)) {
		objects_put(w->objects, &w->s->first_object, &key, SUBMIT_CONTEXT_BYTES, false,
			w->budget);
		w->bytes += SUBMIT_CONTEXT_BYTES;
		w->s->n_subs++;
	}
}

static void destroy_sub(struct walk *w, uint32_t sub)
{
	const struct object_key key = sub_key(w->s, sub);

	if (objects_drop(w->objects, &w->s->first_object, &key, w->budget) == 0) {
		return;
	}
	w->s->n_subs--;
	objects_drop_sub(w->objects, &w->s->first_object, sub, w->budget);
	if (w->s->current_sub == sub) {
		w->s->current_sub = 0;
	}
}

static void create_blob(struct walk *w, const uint32_t *d)
{
	const struct object_key key = {w->s->owner, 0, OBJECT_BLOB, d[11]};
	uint64_t cost = blob_cost(d);

	/* Two of one number are two for the renderer. */
	objects_put(w->objects, &w->s->first_object, &key, cost, true, w->budget);
	w->bytes += cost;
}

static void apply(struct walk *w, const uint32_t *d, uint32_t command, uint32_t length)
{
	struct object_key key;

	switch (command) {
	case CREATE_OBJECT:
		create_object(w, d, length);
		break;
	case DESTROY_OBJECT:
		key = plain_key(w->s, d[1]);
		_unused_ uint32_t n =
			objects_drop(w->objects, &w->s->first_object, &key, w->budget);
		break;
	case SET_SUB_CONTEXT:
		choose_sub(w, d[1]);
		break;
	case CREATE_SUB_CONTEXT:
		create_sub(w, d[1]);
		break;
	case DESTROY_SUB_CONTEXT:
		destroy_sub(w, d[1]);
		break;
	default:
		create_blob(w, d);
		break;
	}
}

void submit_apply(struct submit_state *s, struct objects *objects, const uint32_t *dwords,
	uint32_t n, const struct submit_demand *demand, struct budget *budget)
{
	struct walk w = {s, objects, budget, 0};

	if (demand->chooses && !demand->changes) {
		choose_sub(&w, demand->sub);
	}
	for (uint32_t at = 0; demand->changes && at < n; at += 1 + (dwords[at] >> 16)) {
		uint32_t command = dwords[at] & 0xff;

		if (is_of_interest(command)) {
			apply(&w, &dwords[at], command, dwords[at] >> 16);
		}
	}
	budget_give_back(budget, demand->bytes - w.bytes);
}

void submit_forget(struct submit_state *s, struct objects *objects, struct budget *budget)
{
	objects_drop_all(objects, &s->first_object, budget);
	s->n_subs = s->current_sub = 0;
}
