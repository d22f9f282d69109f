package h2

import (
	"bytes"
	"fmt"

	"golang.org/x/net/http2"
)

// connError ends a tunnel; its code goes into the GOAWAY.
type connError struct {
	code   http2.ErrCode
	reason string
	abuse  Abuse // of ENHANCE_YOUR_CALM
}

func (e *connError) Error() string {
	if e.code == http2.ErrCodeNo {
		return e.reason
	}
	return fmt.Sprintf("%s (%v)", e.reason, e.code)
}

func protocolError(format string, args ...any) error {
	return &connError{code: http2.ErrCodeProtocol, reason: fmt.Sprintf(format, args...)}
}

func newBuffer() *bytes.Buffer { return new(bytes.Buffer) }
