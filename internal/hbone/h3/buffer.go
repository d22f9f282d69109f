package h3

import "sync"

// bufLen is what is moved at once, a frame's header included.
const bufLen = 64 << 10

type buf [bufLen]byte

// bufs holds buffers between uses; pointers to arrays, so that Put does not
// allocate.
var bufs = sync.Pool{New: func() any { return new(buf) }}

func getBuf() *buf { return bufs.Get().(*buf) }
