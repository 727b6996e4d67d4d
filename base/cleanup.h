/* SPDX-License-Identifier: MIT
 * Scope-bound ownership: _cleanup_(fn) runs fn on the variable at scope end; steal_* hands it over.
 */
#pragma once

#include <stdlib.h>

#define _cleanup_(fn)  __attribute__((cleanup(fn)))
#define _unused_       __attribute__((unused))
#define _must_check_   __attribute__((warn_unused_result))
#define _printf_(a, b) __attribute__((format(printf, a, b)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Defines fn##p(type *p), which calls fn(*p) when *p is set, for use with _cleanup_. */
#define DEFINE_CLEANUP(type, fn)                   \
	static inline _unused_ void fn##p(type *p) \
	{                                          \
		if (*p) {                          \
			fn(*p);                    \
		}                                  \
	}

static inline _unused_ void freep(void *p)
{
	free(*(void **)p);
}

#define _cleanup_free_ _cleanup_(freep)

/* Gives the value of a pointer variable away and leaves NULL behind. */
#define steal_ptr(p)                            \
	({                                      \
		__typeof__(p) steal_tmp_ = (p); \
		(p) = NULL;                     \
		steal_tmp_;                     \
	})
