# What `cmake --install` puts where. Nothing that is installed names the prefix, so that the tree can be moved.
#
#   bin/moec                                  lib/libmoec_rt.a, libmoec_text.a
#   include/moec/                             the public headers; generated headers include moec_rt.h by its bare name
#   lib/cmake/moec, lib/pkgconfig/moec.pc     for programs that embed a model
#   share/                                    manual page, completions, JSON Schema of adapter specs
include(CMakePackageConfigHelpers)

# What describes the command line is written by moec itself.
set(DESCRIBED ${PROJECT_BINARY_DIR}/share)
set(DESCRIBED_FILES)
file(MAKE_DIRECTORY ${DESCRIBED})
foreach(pair man:moec.1 bash:moec.bash zsh:_moec fish:moec.fish)
    string(REGEX MATCH "^(.*):(.*)$" _ ${pair})
    set(kind ${CMAKE_MATCH_1})
    set(file ${DESCRIBED}/${CMAKE_MATCH_2})
    add_custom_command(OUTPUT ${file} COMMAND moec describe ${kind} -o ${file} DEPENDS moec VERBATIM)
    list(APPEND DESCRIBED_FILES ${file})
endforeach()
add_custom_target(moec_describe ALL DEPENDS ${DESCRIBED_FILES})

install(TARGETS moec EXPORT moecTargets RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS ${RUNTIME_TARGETS} EXPORT moecTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/moec)
install(FILES ${PUBLIC_HEADERS} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/moec)
install(FILES ${DESCRIBED}/moec.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${DESCRIBED}/moec.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME moec)
install(FILES ${DESCRIBED}/_moec DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${DESCRIBED}/moec.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES frontends/adapter-spec.schema.json DESTINATION ${CMAKE_INSTALL_DATADIR}/moec)

# ---- CMake package ---------------------------------------------------------------------------------

set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/moec)
configure_package_config_file(compiler/cmake/moecConfig.cmake.in ${GEN}/moecConfig.cmake INSTALL_DESTINATION ${PACKAGE_DIR})
write_basic_package_version_file(${GEN}/moecConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT moecTargets NAMESPACE moec:: DESTINATION ${PACKAGE_DIR})
install(FILES ${GEN}/moecConfig.cmake ${GEN}/moecConfigVersion.cmake compiler/cmake/moec_add_model.cmake DESTINATION ${PACKAGE_DIR})

# ---- pkg-config ------------------------------------------------------------------------------------

file(RELATIVE_PATH PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH PC_LIBDIR ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH PC_INCLUDEDIR ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR}/moec)
string(REGEX REPLACE "/$" "" PC_PREFIX ${PC_PREFIX})
configure_file(compiler/cmake/moec.pc.in ${GEN}/moec.pc @ONLY)
install(FILES ${GEN}/moec.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
