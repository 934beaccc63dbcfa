// Between C++, which reports memory that is not there by throwing, and callers that no exception may reach.

#pragma once

#include <exception>

namespace {

// Whether the body has run to its end. It throws nothing but what the standard library does where memory is short.
template <class Body>
bool finishes(const Body& body) {
  try {
    body();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace
