package telemetry

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// NewTraceParent makes a W3C trace context that nobody samples. It only
// correlates the records of both ends, so it need not be secret.
func NewTraceParent() string {
	var id [24]byte
	binary.BigEndian.PutUint64(id[0:], rand.Uint64()|1) // an all-zero id is invalid
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	binary.BigEndian.PutUint64(id[16:], rand.Uint64()|1)
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-00"
}
