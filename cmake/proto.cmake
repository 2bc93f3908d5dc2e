# SPDX-License-Identifier: Apache-2.0
#
# Every proto/NAME.proto becomes gen/proto/NAME.pb.{c,h} by nanopb, limits taken from NAME.options; all of them together
# become gen/proto/descriptor_set.h, which server reflection answers from. Target: trawl_generated.

find_package(nanopb CONFIG REQUIRED)
# The generator needs Debian's own protobuf module: a python3 that comes first in PATH may not have it.
find_program(NANOPB_GENERATOR NAMES nanopb_generator.py nanopb_generator PATHS /usr/bin NO_DEFAULT_PATH REQUIRED)
find_program(PROTOC protoc REQUIRED)
set(gen ${CMAKE_BINARY_DIR}/gen/proto)

file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.proto)
file(GLOB options CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.options)
set(sources)
set(names)
foreach(proto ${protos})
    get_filename_component(name ${proto} NAME_WE)
    set(options_file ${CMAKE_SOURCE_DIR}/proto/${name}.options)
    set(options_flag)
    if(options_file IN_LIST options)
        set(options_flag -f ${options_file})
    endif()
    add_custom_command(OUTPUT ${gen}/${name}.pb.c ${gen}/${name}.pb.h
        COMMAND /usr/bin/python3 ${NANOPB_GENERATOR} -q -D ${gen} -I ${CMAKE_SOURCE_DIR}/proto
            ${options_flag} ${name}.proto
        DEPENDS ${protos} ${options}
        WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}/proto
        COMMENT "nanopb ${name}.proto" VERBATIM)
    list(APPEND sources ${gen}/${name}.pb.c)
    list(APPEND headers ${gen}/${name}.pb.h)
    list(APPEND names ${name}.proto)
endforeach()

if(names)
    add_custom_command(OUTPUT ${gen}/descriptor_set.h
        COMMAND ${PROTOC} -I ${CMAKE_SOURCE_DIR}/proto --include_imports
            --descriptor_set_out=${gen}/descriptor_set.bin ${names}
        COMMAND ${CMAKE_COMMAND} -DIN=${gen}/descriptor_set.bin -DOUT=${gen}/descriptor_set.h
            -DNAME=trawl_descriptor_set -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
        DEPENDS ${protos} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
        COMMENT "descriptor_set.h" VERBATIM)
    add_custom_target(trawl_generate DEPENDS ${headers} ${gen}/descriptor_set.h)
    add_library(trawl_generated STATIC ${sources} ${gen}/descriptor_set.h)
    target_link_libraries(trawl_generated PUBLIC trawl_flags nanopb::protobuf-nanopb-static)
    # Debian's archive is built so, and the structures must agree.
    target_compile_definitions(trawl_generated PUBLIC PB_ENABLE_MALLOC=1)
    add_dependencies(trawl_generated trawl_generate)
else()
    add_library(trawl_generated INTERFACE)
    target_link_libraries(trawl_generated INTERFACE nanopb::protobuf-nanopb-static)
    target_compile_definitions(trawl_generated INTERFACE PB_ENABLE_MALLOC=1)
endif()
