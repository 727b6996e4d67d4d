/* SPDX-License-Identifier: MIT
 * Intrusive doubly linked ring list. A link's comment names its list: struct list link; //
 * vm::devices
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev;
	struct list *next;
};

/* Makes a head, or a link that is in no list. list_remove on such a link does nothing. */
static inline void list_init(struct list *l)
{
	l->prev = l;
	l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_after(struct list *where, struct list *l)
{
	l->prev = where;
	l->next = where->next;
	where->next->prev = l;
	where->next = l;
}

/* Appends l (in no list) behind the last element of head. */
static inline void list_append(struct list *head, struct list *l)
{
	list_insert_after(head->prev, l);
}

static inline void list_prepend(struct list *head, struct list *l)
{
	list_insert_after(head, l);
}

/* Takes l out of its list and leaves it initialised. */
static inline void list_remove(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

/* Moves all elements of from behind those of to. */
static inline void list_move_all(struct list *from, struct list *to)
{
	if (list_empty(from)) {
		return;
	}
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* First element, or NULL of an empty list. */
#define list_first(head, type, member) \
	(list_empty(head) ? NULL : list_entry((head)->next, type, member))

#define list_for_each(pos, head, member)                                                       \
	for (pos = list_entry((head)->next, __typeof__(*pos), member); &pos->member != (head); \
		pos = list_entry(pos->member.next, __typeof__(*pos), member))

/* Like list_for_each; the body may remove and free pos (but not tmp). */
#define list_for_each_safe(pos, tmp, head, member)                        \
	for (pos = list_entry((head)->next, __typeof__(*pos), member),    \
	    tmp = list_entry(pos->member.next, __typeof__(*pos), member); \
		&pos->member != (head);                                   \
		pos = tmp, tmp = list_entry(tmp->member.next, __typeof__(*tmp), member))
