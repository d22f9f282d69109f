package h2

import "sync"

const (
	frameHeaderLen = 9
	recordLen      = 16 << 10 // most plaintext in a TLS record
	recordExtra    = 22       // its header, content type and tag in TLS 1.3

	// frameLen is the longest frame we write and the payload we advertise: with
	// its header it fills four records exactly.
	frameLen   = 4 * recordLen
	payloadLen = frameLen - frameHeaderLen
	// chunkLen is the most that ReadFrom takes from a socket at once.
	chunkLen = 4 * frameLen
	// smallLen is the buffer into which a socket is first read, so that streams
	// waiting for their turn to write hold little.
	smallLen = 8 << 10
	// wireLen holds a chunk's records and some control frames.
	wireLen = chunkLen/recordLen*(recordLen+recordExtra) + smallLen
)

type (
	smallBuf [smallLen]byte
	frameBuf [frameLen]byte
	chunkBuf [chunkLen]byte
	wireBuf  [wireLen]byte
)

// Pools hold buffers between uses; pointers to arrays, so that Put does not
// allocate.
var (
	smallBufs = sync.Pool{New: func() any { return new(smallBuf) }}
	frameBufs = sync.Pool{New: func() any { return new(frameBuf) }}
	chunkBufs = sync.Pool{New: func() any { return new(chunkBuf) }}
	wireBufs  = sync.Pool{New: func() any { return new(wireBuf) }}
)

func getSmall() *smallBuf { return smallBufs.Get().(*smallBuf) }
func getFrame() *frameBuf { return frameBufs.Get().(*frameBuf) }
func getChunk() *chunkBuf { return chunkBufs.Get().(*chunkBuf) }
func getWire() *wireBuf   { return wireBufs.Get().(*wireBuf) }
