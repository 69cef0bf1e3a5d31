# moec_add_model(NAME MODEL path [ADAPTER path] [TRAIN] [DIM NAME=LO..HI...] [MATMUL plain|openblas] [PREFIX prefix]
#                [EMBED_WEIGHTS] [WEIGHTS_DESTINATION folder] [OPTIONS option...])
#
# Compiles a model when the project is built and whenever one of its files, or moec, has changed. Makes
#
#   NAME           a static library; who links it can include "NAME.h" and "moec_rt.h", and call PREFIX_program()
#   NAME_WEIGHTS   a variable, and MOEC_WEIGHTS a property of NAME: the path of the weights, NAME.weights where executables
#                  of this folder go; empty with EMBED_WEIGHTS, which puts them into the library
#
# Relative paths, those in OPTIONS too, are relative to the current source folder. PREFIX is NAME as a C identifier where it
# is not given. WEIGHTS_DESTINATION installs the weights, to a folder below the prefix. The library is linked with moec::rt;
# with OpenBLAS unless MATMUL is plain.

# Files whose change means a new compile: a file with those beside it that begin with its name, as external data do, or all
# of a folder.
function(_moec_files out path)
    if(IS_DIRECTORY "${path}")
        file(GLOB_RECURSE found CONFIGURE_DEPENDS LIST_DIRECTORIES false "${path}/*")
    else()
        file(GLOB found CONFIGURE_DEPENDS LIST_DIRECTORIES false "${path}?*")
        list(APPEND found "${path}")
    endif()
    set(${out} ${${out}} ${found} PARENT_SCOPE)
endfunction()

# The weights that an adapter spec names.
function(_moec_spec_files out path)
    if(NOT EXISTS "${path}" OR IS_DIRECTORY "${path}")
        return()
    endif()
    file(SIZE "${path}" size)
    if(size GREATER 1048576) # safetensors, which name no other file
        return()
    endif()
    file(READ "${path}" text)
    string(JSON weights ERROR_VARIABLE none GET "${text}" weights)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${path}")
    if(NOT none)
        get_filename_component(folder "${path}" DIRECTORY)
        set(${out} ${${out}} "${folder}/${weights}" PARENT_SCOPE)
    endif()
endfunction()

function(_moec_input out path what)
    get_filename_component(path "${path}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
    get_property(made SOURCE "${path}" PROPERTY GENERATED)
    if(NOT EXISTS "${path}" AND NOT made)
        message(FATAL_ERROR "moec_add_model: ${what} '${path}' does not exist")
    endif()
    set(${out} "${path}" PARENT_SCOPE)
endfunction()

function(moec_add_model name)
    cmake_parse_arguments(PARSE_ARGV 1 M "TRAIN;EMBED_WEIGHTS" "MODEL;ADAPTER;MATMUL;PREFIX;WEIGHTS_DESTINATION" "DIM;OPTIONS")
    if(M_UNPARSED_ARGUMENTS OR M_KEYWORDS_MISSING_VALUES)
        message(FATAL_ERROR "moec_add_model: what is '${M_UNPARSED_ARGUMENTS}${M_KEYWORDS_MISSING_VALUES}'?")
    endif()
    if(NOT M_MODEL)
        message(FATAL_ERROR "moec_add_model: no MODEL given")
    endif()
    if(NOT CMAKE_C_COMPILER)
        message(FATAL_ERROR "moec_add_model: the project has to enable the language C")
    endif()
    if(NOT M_MATMUL)
        set(M_MATMUL openblas)
    elseif(NOT M_MATMUL MATCHES "^(plain|openblas)$")
        message(FATAL_ERROR "moec_add_model: MATMUL is plain or openblas, not '${M_MATMUL}'")
    endif()
    if(NOT M_PREFIX)
        string(MAKE_C_IDENTIFIER "${name}" M_PREFIX)
    endif()

    _moec_input(model "${M_MODEL}" MODEL)
    set(options "--prefix=${M_PREFIX}" "--matmul=${M_MATMUL}" "--cc=${CMAKE_C_COMPILER}")
    set(files)
    _moec_files(files "${model}")
    if(M_ADAPTER)
        _moec_input(adapter "${M_ADAPTER}" ADAPTER)
        list(APPEND options "--adapter=${adapter}")
        _moec_files(files "${adapter}")
        _moec_spec_files(files "${adapter}")
    endif()
    if(M_TRAIN)
        list(APPEND options --train)
    endif()
    if(M_EMBED_WEIGHTS)
        list(APPEND options --embed-weights)
    endif()
    foreach(dim IN LISTS M_DIM)
        list(APPEND options "--dim=${dim}")
    endforeach()
    foreach(option IN LISTS M_OPTIONS)
        list(APPEND options "${option}")
        string(REGEX REPLACE "^-[^=]*=" "" path "${option}")
        get_filename_component(path "${path}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
        if(EXISTS "${path}")
            _moec_files(files "${path}")
        endif()
    endforeach()

    set(dir "${CMAKE_CURRENT_BINARY_DIR}/${name}.moec")
    set(object "${dir}/${name}${CMAKE_C_OUTPUT_EXTENSION}")
    set(header "${dir}/${name}.h")
    set(made "${object}" "${header}" "${dir}/moec_rt.h")
    if(M_TRAIN)
        list(APPEND made "${dir}/moec_train.h")
    endif()
    set(place)
    set(weights)
    if(NOT M_EMBED_WEIGHTS)
        set(weights "${CMAKE_CURRENT_BINARY_DIR}/${name}.weights")
        if(CMAKE_RUNTIME_OUTPUT_DIRECTORY AND NOT CMAKE_RUNTIME_OUTPUT_DIRECTORY MATCHES "\\$<")
            set(weights "${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/${name}.weights")
        endif()
        list(APPEND made "${weights}")
        set(place COMMAND ${CMAKE_COMMAND} -E rename "${dir}/${name}.weights" "${weights}")
    endif()
    file(MAKE_DIRECTORY "${dir}")
    add_custom_command(
        OUTPUT ${made}
        COMMAND moec::compiler compile "${model}" --emit=obj ${options} -o "${object}"
        ${place}
        DEPENDS ${files} moec::compiler "$<TARGET_FILE:moec::compiler>"
        WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
        COMMENT "moec compile ${M_MODEL}: ${name}"
        VERBATIM)
    set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)

    add_library(${name} STATIC "${object}" "${header}")
    set_target_properties(${name} PROPERTIES LINKER_LANGUAGE C MOEC_WEIGHTS "${weights}")
    target_include_directories(${name} INTERFACE "${dir}")
    target_link_libraries(${name} INTERFACE moec::rt)
    if(M_MATMUL STREQUAL "openblas")
        find_library(MOEC_OPENBLAS openblas)
        if(NOT MOEC_OPENBLAS)
            message(FATAL_ERROR "moec_add_model: libopenblas not found: install libopenblas-dev, or choose MATMUL plain")
        endif()
        target_link_libraries(${name} INTERFACE "${MOEC_OPENBLAS}")
    endif()
    if(M_WEIGHTS_DESTINATION AND weights)
        install(FILES "${weights}" DESTINATION "${M_WEIGHTS_DESTINATION}")
    endif()
    set(${name}_WEIGHTS "${weights}" PARENT_SCOPE)
endfunction()
