/* SPDX-License-Identifier: MIT
 * VMs that clients added: the next broker knows them too, unless this one is stopped.
 */
#pragma once

struct broker;
struct vm;
struct vm_options;

/* options are those that it was made with. */
void vm_note(const struct vm *vm, const struct vm_options *options);
/* Its limits are others now. */
void vm_note_limits(const struct vm *vm);
void vm_forget_note(const struct vm *vm);
/* Adds those that an earlier broker had noted, where configuration has no VM of that name. */
void vm_restore_all(struct broker *b);
