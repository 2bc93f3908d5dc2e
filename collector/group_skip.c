/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of libraries and runtimes that every failure passes through: they say how a program died,
 * not of what. Invariant: a frame that is skipped is never the place of the mistake as long as a
 * frame of the application stands below it; when none does, signatures take these frames after all.
 * Called by group_signature.c.
 */
#include "collector/group.h"

#include <string.h>

#include "common/text.h"

enum skip_class { OF_MACHINE, OF_GO, OF_JAVA, OF_NODE, OF_PYTHON, OF_DOTNET, OF_RUBY, OF_PHP };
enum skip_where { IN_MODULE, IN_FUNCTION, IN_FILE };

struct skip {
    enum skip_class of;
    enum skip_where where;
    const char *glob;
};

static const struct skip table[] = {
    /* The C library, its loader and threads; in old releases of many files. */
    {OF_MACHINE, IN_MODULE, "libc.so*"},
    {OF_MACHINE, IN_MODULE, "libc-*.so"},
    {OF_MACHINE, IN_MODULE, "libpthread*"},
    {OF_MACHINE, IN_MODULE, "ld-linux*"},
    {OF_MACHINE, IN_MODULE, "ld-musl*"},
    {OF_MACHINE, IN_MODULE, "ld-2.*"},
    {OF_MACHINE, IN_MODULE, "ld.so*"},
    {OF_MACHINE, IN_MODULE, "libdl.so*"},
    {OF_MACHINE, IN_MODULE, "librt.so*"},
    {OF_MACHINE, IN_MODULE, "libm.so*"},
    {OF_MACHINE, IN_MODULE, "libm-2.*"},
    {OF_MACHINE, IN_MODULE, "linux-vdso*"},
    {OF_MACHINE, IN_MODULE, "[vdso]"},
    /* Runtimes of C++, of sanitizers, unwinders, allocators that are loaded beforehand. */
    {OF_MACHINE, IN_MODULE, "libstdc++*"},
    {OF_MACHINE, IN_MODULE, "libc++*"},
    {OF_MACHINE, IN_MODULE, "libgcc_s*"},
    {OF_MACHINE, IN_MODULE, "libunwind*"},
    {OF_MACHINE, IN_MODULE, "lib?san.so*"},
    {OF_MACHINE, IN_MODULE, "libubsan*"},
    {OF_MACHINE, IN_MODULE, "libjemalloc*"},
    {OF_MACHINE, IN_MODULE, "libtcmalloc*"},
    {OF_MACHINE, IN_MODULE, "libglib-2.0*"},
    /* The same where it is linked into the program, by its functions. */
    {OF_MACHINE, IN_FUNCTION, "abort"},
    {OF_MACHINE, IN_FUNCTION, "raise"},
    {OF_MACHINE, IN_FUNCTION, "gsignal"},
    {OF_MACHINE, IN_FUNCTION, "*pthread_kill*"},
    {OF_MACHINE, IN_FUNCTION, "__assert*"},
    {OF_MACHINE, IN_FUNCTION, "__fortify_fail*"},
    {OF_MACHINE, IN_FUNCTION, "__chk_fail"},
    {OF_MACHINE, IN_FUNCTION, "__stack_chk_fail*"},
    {OF_MACHINE, IN_FUNCTION, "__libc_*"},
    {OF_MACHINE, IN_FUNCTION, "__restore_rt"},
    {OF_MACHINE, IN_FUNCTION, "<signal handler called>"},
    {OF_MACHINE, IN_FUNCTION, "_start"},
    {OF_MACHINE, IN_FUNCTION, "start_thread"},
    {OF_MACHINE, IN_FUNCTION, "clone"},
    {OF_MACHINE, IN_FUNCTION, "clone3"},
    {OF_MACHINE, IN_FUNCTION, "__clone*"},
    {OF_MACHINE, IN_FUNCTION, "malloc_printerr*"},
    {OF_MACHINE, IN_FUNCTION, "_int_malloc"},
    {OF_MACHINE, IN_FUNCTION, "_int_free*"},
    /* C++: the standard library, terminate and the unwinder; mangled where nobody undid it. */
    {OF_MACHINE, IN_FUNCTION, "std::*"},
    {OF_MACHINE, IN_FUNCTION, "void std::*"},
    {OF_MACHINE, IN_FUNCTION, "__gnu_cxx::*"},
    {OF_MACHINE, IN_FUNCTION, "__cxxabiv1::*"},
    {OF_MACHINE, IN_FUNCTION, "__cxa_*"},
    {OF_MACHINE, IN_FUNCTION, "_Unwind_*"},
    {OF_MACHINE, IN_FUNCTION, "_ZS?*"},
    {OF_MACHINE, IN_FUNCTION, "_ZNS?*"},
    {OF_MACHINE, IN_FUNCTION, "_ZNKS?*"},
    {OF_MACHINE, IN_FUNCTION, "_ZN9__gnu_cxx*"},
    {OF_MACHINE, IN_FUNCTION, "_ZN10__cxxabiv1*"},
    {OF_MACHINE, IN_FUNCTION, "operator new*"},
    {OF_MACHINE, IN_FUNCTION, "operator delete*"},
    /* Rust: panics and what stands before main. */
    {OF_MACHINE, IN_FUNCTION, "core::*"},
    {OF_MACHINE, IN_FUNCTION, "alloc::*"},
    {OF_MACHINE, IN_FUNCTION, "<core::*"},
    {OF_MACHINE, IN_FUNCTION, "<alloc::*"},
    {OF_MACHINE, IN_FUNCTION, "<std::*"},
    {OF_MACHINE, IN_FUNCTION, "_ZN4core*"},
    {OF_MACHINE, IN_FUNCTION, "_ZN5alloc*"},
    {OF_MACHINE, IN_FUNCTION, "_ZN3std*"},
    {OF_MACHINE, IN_FUNCTION, "rust_begin_unwind*"},
    {OF_MACHINE, IN_FUNCTION, "rust_panic*"},
    {OF_MACHINE, IN_FUNCTION, "__rust_*"},
    {OF_MACHINE, IN_FUNCTION, "__rustc::*"},
    /* Go's runtime, of a core of a Go program as of its own trace. */
    {OF_MACHINE, IN_FUNCTION, "runtime.*"},
    {OF_GO, IN_FUNCTION, "runtime.*"},
    {OF_GO, IN_FUNCTION, "runtime/*"},
    {OF_GO, IN_FUNCTION, "panic*"},
    {OF_GO, IN_FUNCTION, "created by runtime*"},
    {OF_GO, IN_FUNCTION, "testing.*"},
    /* Handlers by which programs report their own crash. */
    {OF_MACHINE, IN_FUNCTION, "sigsegvHandler*"}, /* redis */
    {OF_MACHINE, IN_FUNCTION, "logStackTrace*"},
    {OF_MACHINE, IN_FUNCTION, "bugReport*"},
    {OF_MACHINE, IN_FUNCTION, "printCrashReport*"},
    {OF_MACHINE, IN_FUNCTION, "_serverAssert*"},
    {OF_MACHINE, IN_FUNCTION, "_serverPanic*"},
    {OF_MACHINE, IN_FUNCTION, "ExceptionalCondition"}, /* PostgreSQL */
    {OF_MACHINE, IN_FUNCTION, "errfinish"},
    {OF_MACHINE, IN_FUNCTION, "pg_re_throw"},
    {OF_MACHINE, IN_FUNCTION, "g_log*"}, /* GLib */
    {OF_MACHINE, IN_FUNCTION, "g_assert*"},
    {OF_MACHINE, IN_FUNCTION, "node::Abort*"}, /* Node and V8 */
    {OF_MACHINE, IN_FUNCTION, "node::OnFatalError*"},
    {OF_MACHINE, IN_FUNCTION, "node::OOMErrorHandler*"},
    {OF_MACHINE, IN_FUNCTION, "v8::base::OS::Abort*"},
    {OF_MACHINE, IN_FUNCTION, "V8_Fatal*"},
    {OF_MACHINE, IN_FUNCTION, "v8::*Fatal*"},
    {OF_MACHINE, IN_FUNCTION, "os::abort*"}, /* HotSpot */
    {OF_MACHINE, IN_FUNCTION, "VMError::*"},
    {OF_MACHINE, IN_FUNCTION, "JVM_handle_linux_signal"},
    {OF_MACHINE, IN_FUNCTION, "javaSignalHandler"},
    /* Languages with stacks of their own: what calls what by reflection, loops, pools. */
    {OF_JAVA, IN_FUNCTION, "java.*"},
    {OF_JAVA, IN_FUNCTION, "javax.*"},
    {OF_JAVA, IN_FUNCTION, "jdk.*"},
    {OF_JAVA, IN_FUNCTION, "sun.*"},
    {OF_JAVA, IN_FUNCTION, "com.sun.*"},
    {OF_JAVA, IN_FUNCTION, "java.base/*"},
    {OF_JAVA, IN_FUNCTION, "kotlin.*"},
    {OF_JAVA, IN_FUNCTION, "scala.*"},
    {OF_NODE, IN_FILE, "node:*"},
    {OF_NODE, IN_FILE, "internal/*"},
    {OF_NODE, IN_FILE, "<anonymous>"},
    {OF_NODE, IN_FILE, "native"},
    {OF_PYTHON, IN_FILE, "<frozen *"},
    {OF_PYTHON, IN_FILE, "*asyncio/*.py"},
    {OF_PYTHON, IN_FILE, "*concurrent/futures/*.py"},
    {OF_PYTHON, IN_FILE, "*multiprocessing/*.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/threading.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/runpy.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/socketserver.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/selectors.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/contextlib.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/functools.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/json/*.py"},
    {OF_PYTHON, IN_FILE, "*lib/python?*/importlib/*.py"},
    {OF_DOTNET, IN_FUNCTION, "System.*"},
    {OF_DOTNET, IN_FUNCTION, "Microsoft.*"},
    {OF_DOTNET, IN_FUNCTION, "Internal.*"},
    {OF_RUBY, IN_FILE, "<internal:*"},
    {OF_RUBY, IN_FILE, "*lib/ruby/?.?.?/*"},
    {OF_PHP, IN_FILE, "[internal function]*"},
    {OF_PHP, IN_FUNCTION, "{main}"},
};

struct language {
    const char *glob; /* of Exception.language */
    enum skip_class of;
};

static const struct language languages[] = {
    {"c", OF_MACHINE},    {"c++", OF_MACHINE},       {"cpp", OF_MACHINE},
    {"rust", OF_MACHINE}, {"sanitizer", OF_MACHINE}, {"glib", OF_MACHINE},
    {"go", OF_GO},        {"golang", OF_GO},         {"java", OF_JAVA},
    {"kotlin", OF_JAVA},  {"scala", OF_JAVA},        {"node*", OF_NODE},
    {"js", OF_NODE},      {"javascript", OF_NODE},   {"python*", OF_PYTHON},
    {"*net", OF_DOTNET},  {"c#", OF_DOTNET},         {"csharp", OF_DOTNET},
    {"ruby", OF_RUBY},    {"php", OF_PHP},
};

static int class_of(const char *language, const trawl_v1_Frame *frame)
{
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++)
        if (text_glob(languages[i].glob, language))
            return (int)languages[i].of;
    return frame->module[0] ? OF_MACHINE : -1;
}

bool group_is_machine(const char *language, const trawl_v1_Frame *frame)
{
    return frame->module[0] && class_of(language, frame) == OF_MACHINE;
}

bool group_skips(const char *language, const trawl_v1_Frame *frame, const char *function)
{
    int of = class_of(language, frame);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct skip *s = &table[i];
        if ((int)s->of != of)
            continue;
        const char *text = s->where == IN_MODULE     ? frame->module
                           : s->where == IN_FUNCTION ? function
                                                     : frame->file;
        if (text[0] && text_glob(s->glob, text))
            return true;
    }
    return false;
}
