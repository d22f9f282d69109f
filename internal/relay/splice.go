package relay

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Plain TCP to plain TCP goes through a pipe in the kernel. net.TCPConn does that
// too, but keeps the pipe (two descriptors) for as long as a connection is idle,
// and says how much it moved only at the end.

// pipe is a kernel pipe. The idle ones wait in pipes.
type pipe struct{ r, w int }

// maxPipes bounds the idle pipes; more are closed.
const maxPipes = 64

var pipes = make(chan *pipe, maxPipes)

// pipeLen is what is asked of a pipe at once; the kernel gives up to its
// capacity, 64 KiB unless raised.
const pipeLen = 1 << 20

func getPipe() (*pipe, error) {
	select {
	case p := <-pipes:
		return p, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeLen) // where allowed
	return &pipe{fds[0], fds[1]}, nil
}

// put keeps an empty pipe for the next.
func (p *pipe) put() {
	select {
	case pipes <- p:
	default:
		p.close()
	}
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// splicer moves one direction.
type splicer struct {
	pipe *pipe // not nil only while bytes are in it
	in   int
	err  error
}

// splice copies to the end of src.
func splice(dst, src *net.TCPConn, n *atomic.Uint64) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	s := &splicer{}
	fill, drain := s.fill, s.drain(n)
	for {
		if err := from.Read(fill); err != nil {
			return err
		}
		if s.err == io.EOF {
			return nil
		}
		if s.err != nil {
			return s.err
		}
		err := to.Write(drain)
		if err == nil {
			err = s.err
		}
		if err != nil {
			s.pipe.close() // it may hold bytes
			return err
		}
		s.pipe.put()
		s.pipe = nil
	}
}

// fill waits for bytes without a pipe.
func (s *splicer) fill(fd uintptr) bool {
	p, err := getPipe()
	if err != nil {
		s.err = err
		return true
	}
	m, err := retry(func() (int64, error) { return unix.Splice(int(fd), nil, p.w, nil, pipeLen, spliceFlags) })
	if err == syscall.EAGAIN {
		p.put()
		return false
	}
	if err != nil || m == 0 {
		p.put()
		s.err = err
		if err == nil {
			s.err = io.EOF
		}
		return true
	}
	s.pipe, s.in = p, int(m)
	return true
}

// drain empties the pipe, waiting for dst as long as it must.
func (s *splicer) drain(n *atomic.Uint64) func(fd uintptr) bool {
	return func(fd uintptr) bool {
		for s.in > 0 {
			m, err := retry(func() (int64, error) { return unix.Splice(s.pipe.r, nil, int(fd), nil, s.in, spliceFlags) })
			if err == syscall.EAGAIN {
				return false
			}
			if err != nil {
				s.err = err
				return true
			}
			s.in -= int(m)
			n.Add(uint64(m))
		}
		return true
	}
}

func retry(f func() (int64, error)) (int64, error) {
	for {
		n, err := f()
		if err != syscall.EINTR {
			return n, err
		}
	}
}
