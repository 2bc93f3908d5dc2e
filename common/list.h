/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive, circular, doubly linked list. A `struct list` is both the head and the link embedded
 * in an element; an element is in at most one list per link. All functions are constant time.
 */
#ifndef TRAWL_COMMON_LIST_H
#define TRAWL_COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define LIST_ENTRY(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))
#define LIST_EACH(pos, head)                                                      \
    for (struct list *pos = (head)->next, *pos##_next = pos->next; pos != (head); \
         pos = pos##_next, pos##_next = pos->next)

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert(struct list *at, struct list *link)
{
    link->prev = at;
    link->next = at->next;
    at->next->prev = link;
    at->next = link;
}

static inline void list_push(struct list *head, struct list *link) /* at the end */
{
    list_insert(head->prev, link);
}

/* Takes the element out of whatever list it is in; safe to repeat. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

static inline struct list *list_first(const struct list *head) /* NULL when empty */
{
    return head->next == head ? NULL : head->next;
}

#endif
