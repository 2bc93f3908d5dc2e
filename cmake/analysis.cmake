# SPDX-License-Identifier: Apache-2.0
#
# Targets `tidy` and `cppcheck`: both read compile_commands.json, look only at our own sources, and fail on a finding.

find_program(RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-14)
if(RUN_CLANG_TIDY)
    add_custom_target(tidy
        COMMAND ${RUN_CLANG_TIDY} -quiet -p ${CMAKE_BINARY_DIR}
            "^${CMAKE_SOURCE_DIR}/(common|proto|rule|agent|collector|cli)/"
        COMMENT "clang-tidy" USES_TERMINAL VERBATIM)
endif()

find_program(CPPCHECK cppcheck)
if(CPPCHECK)
    include(ProcessorCount)
    ProcessorCount(cores)
    # Unused functions are not looked for: the libraries are also used by tests. Macros of the system are not expanded.
    add_custom_target(cppcheck
        COMMAND ${CPPCHECK} --project=${CMAKE_BINARY_DIR}/compile_commands.json -j ${cores} --quiet --error-exitcode=1
            --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem
            --suppress=*:${CMAKE_BINARY_DIR}/gen/* --suppress=*:*/tests/victims/*
            --suppress=preprocessorErrorDirective:*/common/pki_mbed.h -i${CMAKE_BINARY_DIR}/gen
        COMMENT "cppcheck" USES_TERMINAL VERBATIM)
endif()
