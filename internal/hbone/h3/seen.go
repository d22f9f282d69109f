package h3

import "sync"

// seen are the kinds of streams of which a peer may have one.
type seen struct {
	mu    sync.Mutex
	kinds [uniDecoder + 1]bool
}

// again notes a stream, and whether it is not the first of its kind.
func (s *seen) again(kind uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.kinds[kind]
	s.kinds[kind] = true
	return was
}
