/* SPDX-License-Identifier: Apache-2.0 */
/* The least that a handler of core(5) can do: it closes the pipe. Started by the kernel for run.py.
 */
int main(void)
{
    return 0;
}
