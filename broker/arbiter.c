/* SPDX-License-Identifier: MIT
 *
 * Each member has a credit. With each tick time passes: to each comes its part of what the pool can
 * do meanwhile, what it used is taken off. An idle member's credit stands at some 60 ms of its own
 * part, so that it begins at once when it wants to; what would come beyond that goes to those that
 * are not fixed, in proportion to their parts, as does what nobody has a right to. So nothing has
 * to be known of who wants and who does not: who does not use its part is full, and it flows over.
 * What was given beyond one's own part is gathered again with each tick. A best-effort member
 * counts as a fair one of 1 %; all of them together never take more than 1 % of what others are
 * guaranteed.
 *
 * If the machine has less to give than the pool's nominal capacity, because others work on it, all
 * have credit and the kernel's scheduler shares as it likes. So time stands still (nearly: it goes
 * on at a sixteenth, for a member that is slow for a reason of its own must not stop the others)
 * while a member lags: it is behind by what it would get in 30 ms, it was ready to run nearly all
 * the time, and for at least a tenth of it did not run. Nobody gets ahead of the slowest that wants
 * by more than that.
 *
 * A command may cost more than is left, so credits may be negative; that is paid off first. Who
 * draws on although it has overdrawn by 15 ms is to be stopped until it has paid; no longer than
 * 150 ms at a time, and it then runs for a short tick: who watches it must not take it for dead.
 */
#include "broker/arbiter.h"

#include "base/checked.h"

#define NS_PER_MS    INT64_C(1000000)
#define PPM          INT64_C(1000000)
#define PPM_PERCENT  (PPM / 100)
#define STANDING_MS  60
#define FULL_MS      30 /* of the pool: what flows over to one */
#define LAG_MS       30
#define FORGET_TICKS 128
#define FADE_TICKS   8
#define IDLE_TICKS   20
#define WINDOW_MIN   (25 * NS_PER_MS)
#define STANDING_MIN (2 * NS_PER_MS)
#define DEBT_MAX     (2000 * NS_PER_MS) /* per CPU; the rest is forgiven */
#define OVERDRAWN    (15 * NS_PER_MS)
#define STOP_MAX     (150 * NS_PER_MS)
#define TICK_MAX     (1000 * NS_PER_MS)
#define SLOW_TIME    16
#define QUIET_TICKS  50

void arbiter_init(struct arbiter *a, uint32_t capacity, uint64_t now_ns)
{
	*a = (struct arbiter){.capacity = capacity, .last_ns = now_ns};
	list_init(&a->members);
}

/* To fair and fixed ones, percent together. */
static uint32_t guaranteed(const struct arbiter *a)
{
	const struct arbiter_member *m;
	uint32_t sum = 0;

	list_for_each (m, &a->members, link) {
		sum += m->share == GPU_SHARE_BEST_EFFORT ? 0 : m->percent;
	}
	return sum;
}

/* What a tick reckons with. */
struct tick {
	uint64_t now;
	int64_t real;      /* ns that have passed */
	int64_t passed;    /* as far as shares go */
	int64_t guarantee; /* ppm, all together */
	int64_t effort;    /* ppm of each best-effort member */
};

/* ppm of the pool */
static int64_t part_of(const struct tick *t, const struct arbiter_member *m)
{
	int64_t part = m->share == GPU_SHARE_BEST_EFFORT ? t->effort : m->percent * PPM_PERCENT;

	/* Configuration allows no more than 100 % together; what draws where may change. */
	return t->guarantee > PPM ? part * PPM / t->guarantee : part;
}

static int64_t standing(
	const struct arbiter *a, const struct tick *t, const struct arbiter_member *m)
{
	int64_t of_pool = STANDING_MS * NS_PER_MS * a->capacity;

	return MAX(of_pool * part_of(t, m) / PPM, STANDING_MIN);
}

static void look_at_shares(const struct arbiter *a, struct tick *t)
{
	const struct arbiter_member *m;
	int64_t n = 0;

	t->guarantee = guaranteed(a) * PPM_PERCENT;
	list_for_each (m, &a->members, link) {
		n += m->share == GPU_SHARE_BEST_EFFORT;
	}
	if (n > 0) {
		t->effort = MIN(PPM_PERCENT, MAX(PPM_PERCENT, PPM - t->guarantee) / n);
	}
}

void arbiter_add(struct arbiter *a, struct arbiter_member *m)
{
	struct tick t = {0};

	list_init(&m->link);
	list_append(&a->members, &m->link);
	look_at_shares(a, &t);
	m->seen_used = m->used_ns;
	m->asked = m->ask = m->stopped = false;
	m->behind = m->lag_max = 0;
	m->credit = m->credit_before = standing(a, &t, m);
	m->granted_ns = t.guarantee > 0 ? m->used_ns + (uint64_t)m->credit : UINT64_MAX;
	a->quiet = 0;
}

void arbiter_remove(struct arbiter *a, struct arbiter_member *m)
{
	list_remove(&m->link);
}

/* Takes off what it used, and says how much that was. */
static int64_t spend(const struct arbiter *a, struct arbiter_member *m)
{
	uint64_t used = m->used_ns - m->seen_used;
	int64_t debt_max = DEBT_MAX * a->capacity, given;

	/* Clocks of renderers that were replaced: never backwards, and no leaps. */
	used = used > (uint64_t)debt_max ? (used > INT64_MAX ? 0 : (uint64_t)debt_max) : used;
	m->seen_used = m->used_ns;
	given = MIN((int64_t)used, m->free_ns);
	m->free_ns -= given;
	m->credit = MAX(m->credit + given - (int64_t)used, -debt_max);
	return (int64_t)used;
}

static int64_t fade(int64_t sum, int64_t more)
{
	return sum - sum / FADE_TICKS + more;
}

/* Whether the machine keeps it from what is its own. The kernel counts a wait when it is over, so
 * it is looked at for a while: all the time it ran or was ready to, and at least a tenth it was not
 * let. One that wants little is ready for a part of the time only. */
static bool lags(const struct tick *t, struct arbiter_member *m)
{
	uint64_t delayed = m->asked && m->ask ? m->delayed_ns - m->seen_delayed : 0;

	delayed = delayed < (uint64_t)TICK_MAX ? delayed : 0;
	if (m->asked && m->ask) {
		m->late = fade(m->late, (int64_t)delayed);
		m->ready = fade(m->ready, (int64_t)delayed + m->spent);
		m->window = fade(m->window, t->real);
	} else {
		m->late = m->ready = m->window = 0;
	}
	m->asked = m->ask;
	m->seen_delayed = m->delayed_ns;
	m->delayed = m->window >= WINDOW_MIN && m->late * 10 >= m->window &&
		     m->ready * 10 >= m->window * 7;
	return m->delayed && m->behind > m->lag_max;
}

/* What it may still be given of what flows over; an idle one has what it needs to begin. */
static int64_t room_for_more(
	const struct arbiter *a, const struct tick *t, const struct arbiter_member *m)
{
	int64_t full = standing(a, t, m) + FULL_MS * NS_PER_MS * a->capacity;

	if (m->share == GPU_SHARE_FIXED || (m->credit > 0 && m->spent * 100 <= t->real)) {
		return 0;
	}
	return MAX(full - m->credit, 0);
}

static bool takes_part(
	const struct arbiter *a, const struct tick *t, const struct arbiter_member *m)
{
	return room_for_more(a, t, m) > 0 || (m->delayed && m->share != GPU_SHARE_FIXED);
}

/* Gives what flows over to those that may have it; in rounds, for some are full before others. Of
 * all of it, fresh is what was not given to anybody before. */
static void give_rest(const struct arbiter *a, const struct tick *t, int64_t rest, int64_t fresh)
{
	const double is_fresh = rest > 0 ? (double)fresh / (double)rest : 0;
	struct arbiter_member *m;

	for (int round = 0; round < 3 && rest > 0; round++) {
		int64_t parts = 0, given = 0;

		list_for_each (m, &a->members, link) {
			parts += takes_part(a, t, m) ? part_of(t, m) : 0;
		}
		if (parts == 0) {
			return;
		}
		list_for_each (m, &a->members, link) {
			int64_t mine, more;

			if (!takes_part(a, t, m)) {
				continue;
			}
			mine = (int64_t)((double)rest * (double)part_of(t, m) / (double)parts);
			more = MIN(mine, room_for_more(a, t, m));
			m->credit += more;
			m->due += (int64_t)((double)more * is_fresh);
			/* What it can't use because others run is not theirs. */
			m->behind += m->delayed ? mine - more : 0;
			given += m->delayed ? mine : more;
		}
		rest -= given;
	}
}

/* What time brings to it. Returns how much of that flows over; *back is what it was given before
 * and has not used. One that can't use it because others run has not left it to them. */
static int64_t earn(
	const struct arbiter *a, const struct tick *t, struct arbiter_member *m, int64_t *back)
{
	int64_t most = standing(a, t, m), over;

	m->due = t->passed * a->capacity / 1000 * part_of(t, m) / 1000;
	m->credit += m->due;
	over = MAX(m->credit - most, 0);
	m->credit -= over;
	*back = MAX(over - m->due, 0);
	if (m->delayed) {
		m->behind += over - *back;
		return 0;
	}
	return over - *back;
}

/* How far it is behind, and may be. A fixed one's credit says it. Others may have been given much
 * because nobody else wanted it: there it is what has come since, and is slowly forgotten. */
static void note_behind(const struct arbiter *a, const struct tick *t, struct arbiter_member *m)
{
	int64_t change = m->credit - m->credit_before;

	if (t->passed > 0) {
		m->lag_max = (int64_t)(LAG_MS * NS_PER_MS * ((double)m->due / (double)t->passed));
	}
	m->behind += change - m->behind / FORGET_TICKS;
	if (m->share == GPU_SHARE_FIXED) {
		m->behind = m->credit;
	}
	m->behind = MAX(MIN(m->behind, MIN(m->credit, 2 * m->lag_max)), 0);
	m->idle = m->spent * 100 > t->real ? 0 : m->idle + 1;
	m->ask = m->idle < IDLE_TICKS &&
		 (m->behind > m->lag_max / 4 || m->credit > standing(a, t, m) / 4 ||
			 (m->ask && m->credit > 0));
	m->credit_before = m->credit;
}

/* Where nothing is guaranteed nobody owes anything, and nobody would be let go on. */
static void decide_stop(const struct tick *t, struct arbiter_member *m)
{
	int64_t since = (int64_t)(t->now - m->since);

	if (t->guarantee == 0) {
		m->stopped = false;
	} else if (m->stopped) {
		if (m->credit >= 0 || since >= STOP_MAX) {
			m->stopped = false;
			m->since = t->now;
		}
	} else if (m->can_be_stopped && m->credit < -OVERDRAWN && m->spent > t->real / 10 &&
		   since >= (int64_t)ARBITER_SHORT_TICK_NS / 2) {
		m->stopped = true;
		m->since = t->now;
	}
}

/* One that has gone on although it is overdrawn is looked at sooner. */
static bool on_parole(const struct arbiter_member *m)
{
	return m->can_be_stopped && !m->stopped && m->credit < -OVERDRAWN;
}

/* What was used while nothing was guaranteed to anybody is nobody's debt. */
static void begin(struct arbiter *a, const struct tick *t)
{
	struct arbiter_member *m;

	list_for_each (m, &a->members, link) {
		m->seen_used = m->used_ns;
		m->credit = m->credit_before = standing(a, t, m);
		m->behind = 0;
	}
}

uint64_t arbiter_tick(struct arbiter *a, uint64_t now_ns)
{
	struct tick t = {
		.now = now_ns, .real = (int64_t)MIN(now_ns - a->last_ns, (uint64_t)TICK_MAX)};
	int64_t rest = PPM, fresh, used = 0;
	struct arbiter_member *m;
	bool lag = false, quiet = true, soon = false;

	a->last_ns = now_ns;
	look_at_shares(a, &t);
	if (t.guarantee > 0 && !a->bounded) {
		begin(a, &t);
	}
	a->bounded = t.guarantee > 0;
	list_for_each (m, &a->members, link) {
		m->spent = spend(a, m);
		used += m->spent;
		lag = lags(&t, m) || lag;
	}
	t.passed = lag ? t.real / SLOW_TIME : t.real;
	list_for_each (m, &a->members, link) {
		rest -= part_of(&t, m);
	}
	fresh = MAX(rest, 0) * (t.passed / 1000) * a->capacity / 1000;
	rest = 0;
	list_for_each (m, &a->members, link) {
		int64_t back;

		quiet = quiet && m->credit + m->spent >= standing(a, &t, m) / 2;
		fresh += earn(a, &t, m, &back);
		rest += back;
	}
	give_rest(a, &t, rest + fresh, fresh);
	list_for_each (m, &a->members, link) {
		note_behind(a, &t, m);
		decide_stop(&t, m);
		soon = soon || on_parole(m);
		m->granted_ns =
			t.guarantee == 0 ? UINT64_MAX : m->used_ns + (uint64_t)MAX(m->credit, 0);
	}
	quiet = quiet && used * 100 <= t.real;
	a->quiet = quiet ? a->quiet + 1 : 0;
	if (t.guarantee == 0 || a->quiet >= QUIET_TICKS) {
		return 0;
	}
	return soon ? ARBITER_SHORT_TICK_NS : ARBITER_TICK_NS;
}
