/* SPDX-License-Identifier: MIT
 *
 * The [gpu] sections, and limits of GPUs wherever they come from.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "broker/config-internal.h"

#define RENDER_NODE_PATH_MAX 63
#define SHOWN_SIZE           200

static const char *show(const char *value, char out[static SHOWN_SIZE])
{
	return log_escape(value, strlen(value), out, SHOWN_SIZE);
}

int config_gpu_set_memory(void *target, const char *value, const struct config_place *place)
{
	struct config_vm *vm = ((struct config_target *)target)->vm;
	char shown[SHOWN_SIZE];

	if (parse_bytes(value, GPU_MEMORY_MIN, GPU_MEMORY_MAX, &vm->gpu_memory) < 0) {
		return config_refuse(
			place, "memory=%s is not a size from 16M to 16G", show(value, shown));
	}
	return 0;
}

int config_gpu_set_group(void *target, const char *value, const struct config_place *place)
{
	struct config_vm *vm = ((struct config_target *)target)->vm;
	char shown[SHOWN_SIZE];

	if (!config_name_ok(value)) {
		return config_refuse(
			place, "socket-group=%s is no name of a group", show(value, shown));
	}
	return config_set_string(&vm->gpu_group, value);
}

int gpu_virgl_parse(const char *text, enum gpu_virgl *out)
{
	static const char *const words[] = {"no", "yes", "hardware"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(text, words[i]) == 0) {
			*out = (enum gpu_virgl)i;
			return 0;
		}
	}
	return -EINVAL;
}

int config_gpu_set_virgl(void *target, const char *value, const struct config_place *place)
{
	struct config_vm *vm = ((struct config_target *)target)->vm;
	char shown[SHOWN_SIZE];

	return gpu_virgl_parse(value, &vm->gpu_virgl) == 0
		       ? 0
		       : config_refuse(place, "virgl=%s is none of no, yes, hardware",
				 show(value, shown));
}

int config_gpu_set_node(void *target, const char *value, const struct config_place *place)
{
	struct config_vm *vm = ((struct config_target *)target)->vm;

	return config_set_path(&vm->render_node, value, "render-node", RENDER_NODE_PATH_MAX, place);
}

int config_gpu_set_dmabuf(void *target, const char *value, const struct config_place *place)
{
	char shown[SHOWN_SIZE];

	if (parse_bool(value, &((struct config_target *)target)->vm->gpu_dmabuf) < 0) {
		return config_refuse(place, "dmabuf=%s is neither yes nor no", show(value, shown));
	}
	return 0;
}

static const char *const shares[] = {"best-effort", "fair", "fixed"};
static_assert(ARRAY_SIZE(shares) == GPU_SHARE_COUNT_, "one per kind");

int gpu_share_parse(const char *text, struct gpu_limits *out)
{
	const char *colon = strchr(text, ':');
	char number[4] = "";
	uint64_t percent;

	if (strcmp(text, shares[GPU_SHARE_BEST_EFFORT]) == 0) {
		out->share = GPU_SHARE_BEST_EFFORT;
		out->percent = 0;
		return 0;
	}
	if (!colon || strlen(colon) < 3 || strlen(colon) > 5 || colon[strlen(colon) - 1] != '%') {
		return -EINVAL;
	}
	memcpy(number, colon + 1, strlen(colon) - 2);
	if (parse_u64(number, 1, 100, &percent) < 0) {
		return -EINVAL;
	}
	for (size_t i = GPU_SHARE_FAIR; i < ARRAY_SIZE(shares); i++) {
		if (strlen(shares[i]) == (size_t)(colon - text) &&
			strncmp(shares[i], text, strlen(shares[i])) == 0) {
			out->share = (enum gpu_share)i;
			out->percent = (uint32_t)percent;
			return 0;
		}
	}
	return -EINVAL;
}

const char *gpu_share_print(const struct gpu_limits *l, char *out, size_t size)
{
	if (l->share == GPU_SHARE_BEST_EFFORT) {
		snprintf(out, size, "%s", shares[l->share]);
	} else {
		snprintf(out, size, "%s:%u%%", shares[l->share], l->percent);
	}
	return out;
}

int gpu_share_read(const char *share, struct gpu_limits *out, struct refusal_text *text)
{
	if (share && gpu_share_parse(share, out) < 0) {
		return refuse_with(text, REFUSAL_INVALID,
			"Use best-effort, fair:N% or fixed:N%, N from 1 to 100.",
			"that is no share of a GPU's time");
	}
	return 0;
}

int gpu_memory_check(const char *vm, uint64_t bytes, struct refusal_text *text)
{
	if (bytes < GPU_MEMORY_MIN || bytes > GPU_MEMORY_MAX) {
		return refuse_with(text, REFUSAL_INVALID, "Give a size from 16M to 16G.",
			"vm %s: its GPU can't have that much memory", vm);
	}
	return 0;
}

int gpu_limits_check(const struct gpu_limits *l, struct refusal_text *text)
{
	if (l->share != GPU_SHARE_BEST_EFFORT && (l->percent < 1 || l->percent > 100)) {
		return refuse(text, REFUSAL_INVALID, "a share has to be from 1 to 100 percent");
	}
	if (l->frame_rate > GPU_FRAME_RATE_MAX) {
		return refuse(text, REFUSAL_INVALID,
			"frame-rate has to be none or between 1 and %d", GPU_FRAME_RATE_MAX);
	}
	if (l->contexts > GPU_CONTEXTS_LIMIT_MAX) {
		return refuse(text, REFUSAL_INVALID,
			"a GPU's contexts have to be none or between 1 and %d",
			GPU_CONTEXTS_LIMIT_MAX);
	}
	if (l->resources > GPU_RESOURCES_LIMIT_MAX) {
		return refuse(text, REFUSAL_INVALID,
			"a GPU's resources have to be none or between 1 and %d",
			GPU_RESOURCES_LIMIT_MAX);
	}
	return 0;
}

int config_gpu_set_share(void *target, const char *value, const struct config_place *place)
{
	struct config_vm *vm = ((struct config_target *)target)->vm;
	char shown[SHOWN_SIZE];

	return gpu_share_parse(value, &vm->gpu_limits) == 0
		       ? 0
		       : config_refuse(place,
				 "share=%s is none of best-effort, fair:N%%, fixed:N%% (N from 1 "
				 "to 100)",
				 show(value, shown));
}

/* "none" is 0. */
static int set_limit(const char *key, const char *value, uint32_t max, uint32_t *field,
	const struct config_place *place)
{
	char shown[SHOWN_SIZE];
	uint64_t n = 0;

	if (strcmp(value, "none") != 0 && parse_u64(value, 1, max, &n) < 0) {
		return config_refuse(place, "%s=%s is neither none nor a number from 1 to %u", key,
			show(value, shown), max);
	}
	*field = (uint32_t)n;
	return 0;
}

int config_gpu_set_frame_rate(void *target, const char *value, const struct config_place *place)
{
	struct gpu_limits *l = &((struct config_target *)target)->vm->gpu_limits;

	return set_limit("frame-rate", value, GPU_FRAME_RATE_MAX, &l->frame_rate, place);
}

int config_gpu_set_contexts(void *target, const char *value, const struct config_place *place)
{
	struct gpu_limits *l = &((struct config_target *)target)->vm->gpu_limits;

	return set_limit("contexts", value, GPU_CONTEXTS_LIMIT_MAX, &l->contexts, place);
}

int config_gpu_set_resources(void *target, const char *value, const struct config_place *place)
{
	struct gpu_limits *l = &((struct config_target *)target)->vm->gpu_limits;

	return set_limit("resources", value, GPU_RESOURCES_LIMIT_MAX, &l->resources, place);
}

static int set_number(const char *key, const char *value, uint32_t max, uint32_t *field,
	const struct config_place *place)
{
	char shown[SHOWN_SIZE];
	uint64_t n;

	if (parse_u64(value, 1, max, &n) < 0) {
		return config_refuse(
			place, "%s=%s is not a number from 1 to %u", key, show(value, shown), max);
	}
	*field = (uint32_t)n;
	return 0;
}

int config_gpu_set_hang(void *target, const char *value, const struct config_place *place)
{
	struct config_vm *vm = ((struct config_target *)target)->vm;

	return set_number(
		"hang-timeout", value, GPU_HANG_SECONDS_MAX, &vm->gpu_hang_seconds, place);
}

int config_gpu_set_cpus(void *target, const char *value, const struct config_place *place)
{
	struct config *c = ((struct config_target *)target)->config;

	return set_number("software-cpus", value, GPU_CPUS_MAX, &c->software_cpus, place);
}
