/* SPDX-License-Identifier: MIT
 * What a client of the vtest socket may send: the bytes of one connection, behind one that says in
 * how large pieces they come.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "gpu/vtest-session.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake-virgl.h"

#define BUDGET (12U << 20)

static void check(bool ok)
{
	if (!ok) {
		abort();
	}
}

/* Sends what there is to send, and lets each fence be reached when it is waited for. */
static int run(struct vtest_session *s)
{
	for (;;) {
		int r = vtest_session_run(s);

		check(s->table.budget.used <= BUDGET);
		switch (r) {
		case VTEST_NEED_SEND:
			vtest_session_sent(s);
			break;
		case VTEST_NEED_FENCE:
			check(fake_virgl()->reached != fake_virgl()->fences);
			fake_virgl()->reached = fake_virgl()->fences;
			break;
		case VTEST_NEED_BYTES:
			return r;
		default:
			check(r < 0 && s->why[0] != '\0');
			return r;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vtest_session *s = malloc(sizeof(*s));
	const struct virgl_options options = {.fence = vtest_session_fence, .userdata = s};
	char name[VIRGL_RENDERER_NAME_SIZE];
	size_t step = size > 0 ? data[0] * 64U + 1 : 1;
	int r;

	*fake_virgl() = (struct fake_virgl){0};
	check(s && fake_virgl_ops.init(&options, name) == 0 &&
		vtest_session_init(s, &fake_virgl_ops, BUDGET) == 0);
	r = run(s);
	for (size_t at = 1; at < size && r == VTEST_NEED_BYTES;) {
		size_t room, n;
		void *to = vtest_session_room(s, &room);

		n = MIN(MIN(step, size - at), room);
		memcpy(to, data + at, n);
		vtest_session_received(s, n);
		at += n;
		r = run(s);
	}
	vtest_session_finish(s);
	check(fake_virgl()->contexts == 0 && fake_virgl()->resources == 0 &&
		fake_virgl()->attached == 0 && fake_virgl()->backed == 0);
	free(s);
	return 0;
}
