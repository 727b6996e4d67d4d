/* SPDX-License-Identifier: MIT
 * Arithmetic that says when it overflows, and numbers read from text with bounds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* true when it fits; *out is the result then, undefined otherwise. */
static inline _must_check_ bool size_add(size_t a, size_t b, size_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}

static inline _must_check_ bool size_mul(size_t a, size_t b, size_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

static inline _must_check_ bool u64_add(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}

static inline _must_check_ bool u64_mul(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

/* Of two numbers of one type; both are evaluated once or twice: no side effects, please. */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Parses a decimal number in [min, max]. -EINVAL if it is not one, -ERANGE if out of bounds. */
int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out) _must_check_;

/* Parses a byte count with an optional suffix K, M, G or T (powers of 1024). Errors as parse_u64.
 */
int parse_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *out) _must_check_;

/* Parses yes/no, true/false, on/off, 1/0. -EINVAL otherwise. */
int parse_bool(const char *text, bool *out) _must_check_;

/* Parses a file descriptor number (>= 0). -EINVAL otherwise. */
int parse_fd(const char *text, int *out) _must_check_;
