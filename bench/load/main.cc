// kavach-load: the load generator. Exit codes: 1 an answer was wrong or none came, 2 the command line is
// wrong.
#include <exception>
#include <iostream>

#include "bench/load/generator.h"
#include "bench/load/options.h"
#include "bench/load/report.h"

int main(int argc, char** argv) {
  using namespace kavach::bench;
  try {
    LoadOptions options;
    int exit_code = 0;
    if (!read_options(argc, argv, options, exit_code)) return exit_code;
    const LoadReport report = Generator(options).run();
    std::cout << (options.json ? report_json(options, report) + '\n' : report_text(options, report));
    return report.faults.empty() && report.answers > 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "kavach-load: " << error.what() << '\n';
    return 1;
  }
}
