// Puts whose data librados reads where it lies. Its C interface copies what it is given, its C++
// interface takes buffers of others. See lend.rs.

#include <cerrno>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include <rados/librados.hpp>

namespace {

// Shorter pieces are copied: a buffer of its own costs more.
constexpr unsigned kLentMin = 16 << 10;

// References of our own to buffers that librados may still refer to.
struct Lent {
  std::vector<ceph::buffer::ptr> buffers;
};

}  // namespace

extern "C" {

struct yadokari_piece {
  char *data;
  unsigned len;
};

struct yadokari_put {
  const char *object;
  int flags;
  // Refused with EEXIST where the object exists.
  int exclusive;
  // Otherwise refused with ERANGE or EOVERFLOW where it is at another version.
  uint64_t version;
  const yadokari_piece *pieces;
  size_t pieces_len;
  // An extended attribute; null: none.
  const char *xattr;
  const char *value;
  unsigned value_len;
};

// Writes an object. Gives 0 and `lent`, which says when the pieces are read no more, or a negative
// errno: then the callback does not come and the pieces are read no more.
int yadokari_rados_put(rados_ioctx_t io, const yadokari_put *put, rados_callback_t done, void *arg,
                       void **lent) noexcept {
  try {
    auto own = new Lent;
    *lent = own;
    own->buffers.reserve(put->pieces_len);
    ceph::buffer::list data;
    for (size_t n = 0; n < put->pieces_len; n++) {
      const yadokari_piece &piece = put->pieces[n];
      if (piece.len < kLentMin) {
        data.append(piece.data, piece.len);
        continue;
      }
      own->buffers.emplace_back(ceph::buffer::create_static(piece.len, piece.data));
      data.append(own->buffers.back());
    }
    librados::ObjectWriteOperation op;
    if (put->exclusive)
      op.create(true);
    else
      op.assert_version(put->version);
    op.write_full(data);
    if (put->xattr) {
      ceph::buffer::list value;
      value.append(put->value, put->value_len);
      op.setxattr(put->xattr, value);
    }
    librados::IoCtx pool;
    librados::IoCtx::from_rados_ioctx_t(io, pool);
    librados::AioCompletion *completion = librados::Rados::aio_create_completion(arg, done);
    int code = pool.aio_operate(put->object, completion, &op, put->flags);
    completion->release();
    return code;
  } catch (const std::bad_alloc &) {
    return -ENOMEM;
  } catch (...) {
    return -EIO;
  }
}

// Whether librados refers to the pieces no more.
int yadokari_rados_lent_is_back(const void *lent) noexcept {
  for (const auto &buffer : static_cast<const Lent *>(lent)->buffers)
    if (buffer.raw_nref() != 1) return 0;
  return 1;
}

void yadokari_rados_lent_end(void *lent) noexcept { delete static_cast<Lent *>(lent); }

}  // extern "C"
