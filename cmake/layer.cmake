# SPDX-License-Identifier: Apache-2.0
#
# trawl_layer(FOLDER TARGET ...): a folder's sources, but main.c, as one static library.
# trawl_program(FOLDER NAME ...): a folder's main.c as one program.

# SOURCES beside the folder's own are for those that EXCLUDE (a pattern) keeps out; on Windows they are the whole list.
function(trawl_layer folder target)
    cmake_parse_arguments(arg "" "EXCLUDE" "SOURCES;LINK;DEFINE" ${ARGN})
    set(sources)
    if(NOT WIN32 OR NOT arg_SOURCES)
        file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.c)
        list(FILTER sources EXCLUDE REGEX "/main\\.c$")
        if(arg_EXCLUDE)
            list(FILTER sources EXCLUDE REGEX "${arg_EXCLUDE}")
        endif()
    endif()
    foreach(source ${arg_SOURCES})
        # Through a glob, so that the build notices the file when it comes.
        file(GLOB found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${source})
        list(APPEND sources ${found})
    endforeach()
    if(sources)
        add_library(${target} STATIC ${sources})
        target_link_libraries(${target} PUBLIC trawl_flags ${arg_LINK} PRIVATE trawl_warnings)
        target_compile_definitions(${target} PRIVATE ${arg_DEFINE})
    else()
        add_library(${target} INTERFACE)
        target_link_libraries(${target} INTERFACE trawl_flags ${arg_LINK})
    endif()
endfunction()

function(trawl_program folder name)
    cmake_parse_arguments(arg "STATIC_BINARY" "" "LINK" ${ARGN})
    file(GLOB main CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/main.c)
    if(NOT main)
        return()
    endif()
    add_executable(${name} ${main})
    target_link_libraries(${name} PRIVATE ${arg_LINK} trawl_warnings)
    if(TRAWL_STATIC AND arg_STATIC_BINARY)
        target_link_options(${name} PRIVATE -static)
    endif()
    install(TARGETS ${name} RUNTIME DESTINATION bin)
endfunction()
