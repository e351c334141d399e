// Certificates of one test, made by openssl.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "tests/support/temp_folder.h"

namespace kavach::test {

// Two authorities, and a server that the first vouches for under the name localhost.
struct Certificates {
  Certificates() {
    const auto run = [this](const std::string& command) {
      const int status =
          std::system(("cd '" + folder.path().string() + "' && { " + command + "; } >log 2>&1").c_str());
      REQUIRE_MESSAGE(status == 0, command);
    };
    for (const std::string authority : {"ca", "other_ca"}) {
      run("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=Test " + authority + "' -keyout " +
          authority + ".key -out " + authority + ".pem");
    }
    run("openssl req -newkey rsa:2048 -nodes -subj /CN=redis -keyout server.key -out server.csr");
    run("printf 'subjectAltName=DNS:localhost' >names");
    run("openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names "
        "-out server.pem");
  }
  TempFolder folder;
};

}  // namespace kavach::test
