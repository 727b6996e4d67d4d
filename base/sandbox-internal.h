/* SPDX-License-Identifier: MIT
 * What the two halves of the sandbox share, and their tests: nobody else includes this.
 */
#pragma once

#include "base/sandbox.h"

/* ASan and UBSan need more memory and a few more system calls; nothing else depends on this. */
#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_SANITIZERS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define SANDBOX_SANITIZERS 1
#endif
#endif
#ifndef SANDBOX_SANITIZERS
#define SANDBOX_SANITIZERS 0
#endif

/* Loads the filter of kind on all threads. no_new_privs is set. 0 or -errno. */
int sandbox_seccomp_load(enum sandbox_kind kind) _must_check_;
