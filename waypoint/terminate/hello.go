package terminate

import (
	"encoding/binary"
	"errors"
)

var (
	errNoTLS    = errors.New("it does not begin with a handshake of TLS")
	errHello    = errors.New("the hello is malformed")
	errBigHello = errors.New("the hello is too long")
)

// maxHello bounds the hello of a client, post-quantum keys included.
const maxHello = 64 << 10

// serverNameOf reads the name that a client asks for out of the beginning of a
// connection (RFC 8446 4.1.2, RFC 6066 3). whole is false while more is needed.
func serverNameOf(b []byte) (name string, whole bool, err error) {
	hello, whole, err := helloOf(b)
	if !whole || err != nil {
		return "", false, err
	}
	r := reader{hello, false}
	r.take(2 + 32)      // version, random
	r.take(r.number(1)) // session
	r.take(r.number(2)) // suites
	r.take(r.number(1)) // compression
	extensions := reader{r.take(r.number(2)), false}
	for len(extensions.b) > 0 && !extensions.bad {
		kind := extensions.number(2)
		body := extensions.take(extensions.number(2))
		if kind == 0 {
			name = nameIn(body)
		}
	}
	if r.bad || extensions.bad {
		return "", false, errHello
	}
	return name, true, nil
}

// nameIn is the host name of the extension server_name.
func nameIn(b []byte) string {
	r := reader{b, false}
	list := reader{r.take(r.number(2)), false}
	for len(list.b) > 0 && !list.bad {
		kind := list.number(1)
		if name := list.take(list.number(2)); kind == 0 && !list.bad {
			return string(name)
		}
	}
	return ""
}

// helloOf puts the records of the first handshake message together.
func helloOf(b []byte) (hello []byte, whole bool, err error) {
	for {
		if len(b) > 0 && b[0] != 22 || len(b) > 1 && b[1] != 3 {
			return nil, false, errNoTLS
		}
		if len(b) < 5 {
			return nil, false, nil
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n == 0 || n > 16<<10 {
			return nil, false, errHello
		}
		hello = append(hello, b[5:min(len(b), 5+n)]...)
		if len(hello) > 0 && hello[0] != 1 {
			return nil, false, errHello
		}
		if len(hello) >= 4 {
			size := int(hello[1])<<16 | int(hello[2])<<8 | int(hello[3])
			if size > maxHello {
				return nil, false, errBigHello
			}
			if len(hello) >= 4+size {
				return hello[4 : 4+size], true, nil
			}
		}
		if len(b) < 5+n {
			return nil, false, nil
		}
		b = b[5+n:]
	}
}

// reader takes a message apart; once something is missing it is bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) number(size int) (n int) {
	for _, c := range r.take(size) {
		n = n<<8 | int(c)
	}
	return n
}
