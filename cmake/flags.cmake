# SPDX-License-Identifier: Apache-2.0
#
# Two interface targets: trawl_flags (language, sanitizer, hardening) goes wherever our libraries go, trawl_warnings only
# on code that we write. Programs that are captured by tests take neither: a victim must be an ordinary process.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)

# No NDEBUG: asserts stay on in what is shipped.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

add_library(trawl_warnings INTERFACE)
target_compile_options(trawl_warnings INTERFACE
    -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Werror)
if(TRAWL_SANITIZE AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # The checks that gcc puts in hide from it what a value can be: these then warn of what cannot happen. dev and
    # release keep them.
    target_compile_options(trawl_warnings INTERFACE -Wno-format-truncation -Wno-stringop-truncation
        -Wno-stringop-overflow -Wno-array-bounds -Wno-maybe-uninitialized)
endif()

add_library(trawl_flags INTERFACE)
target_compile_definitions(trawl_flags INTERFACE TRAWL_VERSION="${PROJECT_VERSION}")
# The repository is the include root; what is generated lies beside it under the same names.
target_include_directories(trawl_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_include_directories(trawl_flags SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/gen ${CMAKE_BINARY_DIR}/gen/proto)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/gen/proto)

if(WIN32)
    target_compile_definitions(trawl_flags INTERFACE _WIN32_WINNT=0x0A00 __USE_MINGW_ANSI_STDIO=1)
else()
    # Strict C11 hides POSIX; this asks for it again, without the GNU extensions.
    target_compile_definitions(trawl_flags INTERFACE _DEFAULT_SOURCE)
endif()

set(sanitize_address -fsanitize=address,undefined -fno-sanitize-recover=undefined)
set(sanitize_thread -fsanitize=thread)
set(sanitize_fuzz -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined)
if(TRAWL_SANITIZE)
    if(NOT DEFINED sanitize_${TRAWL_SANITIZE})
        message(FATAL_ERROR "TRAWL_SANITIZE is '${TRAWL_SANITIZE}'; there are: address, thread, fuzz")
    endif()
    target_compile_options(trawl_flags INTERFACE ${sanitize_${TRAWL_SANITIZE}} -O1 -fno-omit-frame-pointer)
    target_link_options(trawl_flags INTERFACE ${sanitize_${TRAWL_SANITIZE}})
elseif(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo" AND NOT WIN32)
    target_compile_options(trawl_flags INTERFACE -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
        -ffunction-sections -fdata-sections)
    target_link_options(trawl_flags INTERFACE -Wl,-z,relro,-z,now -Wl,--gc-sections)
endif()
