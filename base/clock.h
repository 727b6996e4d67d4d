/* SPDX-License-Identifier: MIT
 * What time it is.
 */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* CLOCK_MONOTONIC. */
static inline uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static inline uint64_t now_usec(void)
{
	return now_ns() / 1000;
}

/* Signed: for what is left until a deadline. */
static inline int64_t now_ms(void)
{
	return (int64_t)(now_ns() / 1000000);
}

/* CLOCK_REALTIME. */
static inline uint64_t wall_usec(void)
{
	return clock_ns(CLOCK_REALTIME) / 1000;
}
