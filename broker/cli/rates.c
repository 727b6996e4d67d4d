/* SPDX-License-Identifier: MIT */
#include "broker/cli/rates.h"

#include <string.h>

static uint64_t count_at(const json_t *list, size_t i)
{
	return (uint64_t)json_integer_value(json_array_get(list, i));
}

/* How many more are in bucket i; what was lent anew meanwhile counts from nothing. */
static uint64_t grown(const json_t *latency, const json_t *before, size_t i)
{
	uint64_t now = count_at(latency, i), was = count_at(before, i);

	return now >= was ? now - was : now;
}

uint64_t rates_latency(const json_t *latency, const json_t *before, unsigned int permille)
{
	size_t n = json_array_size(latency), i;
	uint64_t all = 0, seen = 0;

	for (i = 0; i < n; i++) {
		all += grown(latency, before, i);
	}
	if (all == 0 || n > 63) {
		return 0;
	}
	for (i = 0; i < n; i++) {
		seen += grown(latency, before, i);
		if (seen >= all / 1000 * permille + all % 1000 * permille / 1000 && seen > 0) {
			break;
		}
	}
	return UINT64_C(1) << (i < n ? i : n - 1);
}

double rates_gpu(const json_t *gpu, const json_t *before, const char *key)
{
	json_int_t now = json_integer_value(json_object_get(gpu, key));
	json_int_t was = json_integer_value(json_object_get(before, key));
	json_int_t usec = json_integer_value(json_object_get(gpu, "heard_usec")) -
			  json_integer_value(json_object_get(before, "heard_usec"));

	if (!before || usec <= 0 || now < was) {
		return -1;
	}
	return (double)(now - was) * 1e6 / (double)usec;
}

json_t *rates_find(const json_t *list, const char *key, const char *name)
{
	json_t *object;
	size_t i;

	json_array_foreach(list, i, object)
	{
		const char *text = json_string_value(json_object_get(object, key));

		if (text && strcmp(text, name) == 0) {
			return object;
		}
	}
	return NULL;
}
