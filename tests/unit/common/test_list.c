/* SPDX-License-Identifier: Apache-2.0 */
/* Order, removal while walking, and the promise that removing twice is harmless. */
#include "common/list.h"

#include <stdint.h>

#include "tests/check.h"

struct element {
    int value;
    struct list link;
};

/* The values in order as decimal digits: {1, 2, 3} is 123. Also checks the way back. */
static int digits(const struct list *head)
{
    int forward = 0, backward = 0, weight = 1;
    LIST_EACH (at, (struct list *)(uintptr_t)head)
        forward = forward * 10 + LIST_ENTRY(at, struct element, link)->value;
    for (struct list *at = head->prev; at != head; at = at->prev, weight *= 10)
        backward += LIST_ENTRY(at, struct element, link)->value * weight;
    CHECK_EQ_INT(forward, backward);
    return forward;
}

TEST(pushes_at_the_end_in_order)
{
    struct list head;
    struct element e[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    CHECK(list_empty(&head));
    CHECK(list_first(&head) == NULL);
    for (int i = 0; i < 3; i++)
        list_push(&head, &e[i].link);
    CHECK(!list_empty(&head));
    CHECK(list_first(&head) == &e[0].link);
    CHECK_EQ_INT(digits(&head), 123);
}

TEST(inserts_behind_a_place)
{
    struct list head;
    struct element e[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    list_push(&head, &e[0].link);
    list_insert(&e[0].link, &e[1].link);
    list_insert(&head, &e[2].link);
    CHECK_EQ_INT(digits(&head), 312);
}

TEST(removes_from_any_place_and_twice)
{
    struct list head;
    struct element e[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    for (int i = 0; i < 3; i++)
        list_push(&head, &e[i].link);
    list_remove(&e[1].link);
    CHECK_EQ_INT(digits(&head), 13);
    list_remove(&e[1].link);
    CHECK_EQ_INT(digits(&head), 13);
    list_remove(&e[0].link);
    list_remove(&e[2].link);
    CHECK(list_empty(&head));
    list_push(&head, &e[1].link);
    CHECK_EQ_INT(digits(&head), 2);
}

TEST(the_element_at_hand_may_be_removed_while_walking)
{
    struct list head;
    struct element e[5] = {{.value = 1}, {.value = 2}, {.value = 3}, {.value = 4}, {.value = 5}};
    list_init(&head);
    for (int i = 0; i < 5; i++)
        list_push(&head, &e[i].link);
    int seen = 0;
    LIST_EACH (at, &head) {
        seen++;
        if (LIST_ENTRY(at, struct element, link)->value % 2)
            list_remove(at);
    }
    CHECK_EQ_INT(seen, 5);
    CHECK_EQ_INT(digits(&head), 24);
}
