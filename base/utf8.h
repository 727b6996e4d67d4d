/* SPDX-License-Identifier: MIT
 * UTF-8, one character at a time.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Reads the character at p, of which left bytes may be looked at, into *out. Returns its bytes, or
 * 0 (*out untouched) if there is none in good form: RFC 3629, 4, no surrogates, nothing longer than
 * need be. A NUL ends every sequence: for a NUL-terminated text left may be SIZE_MAX. */
size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *out);
