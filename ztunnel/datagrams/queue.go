package datagrams

import "sync"

// queue is the datagrams of a flow that wait to be sent. Empty, as it mostly is,
// it holds no memory for them.
type queue struct {
	arrived chan struct{} // has one when there is something new

	mu    sync.Mutex
	items [][]byte
}

func newQueue() queue { return queue{arrived: make(chan struct{}, 1)} }

// put adds a datagram behind the others, unless these are most already.
func (q *queue) put(payload []byte, most int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) >= most {
		return false
	}
	q.items = append(q.items, payload)
	select {
	case q.arrived <- struct{}{}:
	default:
	}
	return true
}

// next takes the first; false if there is none.
func (q *queue) next() ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil, false
	}
	first := q.items[0]
	if q.items[0], q.items = nil, q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	return first, true
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}
