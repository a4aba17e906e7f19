// Gets whose data stays where librados received it. Its C interface copies it into a buffer of the
// caller's, its C++ interface gives away its own. See receive.rs.

#include <cerrno>
#include <cstdint>
#include <map>
#include <new>
#include <string>

#include <rados/librados.hpp>

namespace {

struct Received {
  ceph::buffer::list data;
  std::map<std::string, ceph::buffer::list> xattrs;
};

}  // namespace

extern "C" {

struct yadokari_get {
  const char *object;
  // Refused with ERANGE or EOVERFLOW where the object is at another version; 0: any.
  uint64_t version;
  // What lies beyond the end is not there; length 0: no data.
  uint64_t offset;
  uint64_t length;
  // Whether the extended attributes are asked for too.
  int xattrs;
};

// Reads an object. Gives 0 and `received`, or a negative errno: then the callback does not come.
// `received` is to be ended either way, where it is not null.
int yadokari_rados_get(rados_ioctx_t io, const yadokari_get *get, rados_callback_t done, void *arg,
                       void **received) noexcept {
  try {
    auto own = new Received;
    *received = own;
    librados::ObjectReadOperation op;
    if (get->version) op.assert_version(get->version);
    if (get->xattrs) op.getxattrs(&own->xattrs, nullptr);
    if (get->length) op.read(get->offset, get->length, &own->data, nullptr);
    librados::IoCtx pool;
    librados::IoCtx::from_rados_ioctx_t(io, pool);
    librados::AioCompletion *completion = librados::Rados::aio_create_completion(arg, done);
    int code = pool.aio_operate(get->object, completion, &op, nullptr);
    completion->release();
    return code;
  } catch (const std::bad_alloc &) {
    return -ENOMEM;
  } catch (...) {
    return -EIO;
  }
}

// The data, after the callback; there until the end. Null where there is no memory for it.
const char *yadokari_rados_received_data(void *received, size_t *len) noexcept {
  try {
    auto &data = static_cast<Received *>(received)->data;
    *len = data.length();
    return data.c_str();
  } catch (...) {
    return nullptr;
  }
}

// An extended attribute, likewise. Null where there is none.
const char *yadokari_rados_received_xattr(void *received, const char *name, size_t *len) noexcept {
  try {
    auto &xattrs = static_cast<Received *>(received)->xattrs;
    auto found = xattrs.find(name);
    if (found == xattrs.end()) return nullptr;
    *len = found->second.length();
    return found->second.c_str();
  } catch (...) {
    return nullptr;
  }
}

void yadokari_rados_received_end(void *received) noexcept {
  delete static_cast<Received *>(received);
}

}  // extern "C"
