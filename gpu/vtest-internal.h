/* SPDX-License-Identifier: MIT
 * What vtest-session.c and vtest-commands.c share.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "protocol/vtest.h"

struct vtest_arena;
struct vtest_session;

#define VTEST_CONTEXT    1 /* the one that each client has */
#define VTEST_ARENA_SIZE (256U << 10)

/* Says why the client is dropped; passes error on. */
int vtest_refuse(struct vtest_session *s, int error, const char *fmt, ...) _printf_(3, 4);

/* At least n more bytes behind its end. 0, or -EDQUOT or -ENOMEM with why said. */
int vtest_arena_reserve(struct vtest_session *s, struct vtest_arena *a, uint64_t n) _must_check_;

/* Bytes behind the body of a request (of TRANSFER_PUT), once its body is known to be good. 0 or
 * -errno with why said. */
int vtest_data_size(struct vtest_session *s, const struct vtest_header *h, const uint8_t *body,
	uint32_t *out) _must_check_;

/* Does one request, all of whose bytes are there; body is aligned to 4 bytes. 0 or -errno with why
 * said. */
int vtest_do(struct vtest_session *s, const struct vtest_header *h, uint8_t *body,
	uint32_t data) _must_check_;

/* Makes a fence behind what was submitted, if there is none yet. 0 or -errno with why said. */
int vtest_fence(struct vtest_session *s) _must_check_;

/* Answers a BUSY_WAIT. */
int vtest_answer_busy(struct vtest_session *s, bool busy) _must_check_;
