package agent

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/health"
)

// seen is what this agent found, for whoever asks how the node is. The zero
// value is ready.
type seen struct {
	mu      sync.Mutex
	looks   map[string]look           // by UID
	waiting map[string]health.Waiting // by namespace/name
}

// look is what the comparisons of one pod's rules with the kernel have found.
type look struct {
	verified, last time.Time
	mended         int
	drift          string
	err            error
}

func (s *seen) looked(uid string, drift []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looks == nil {
		s.looks = map[string]look{}
	}
	l := s.looks[uid]
	if l.err = err; err == nil {
		l.verified = time.Now()
	}
	if len(drift) > 0 {
		l.mended, l.last, l.drift = l.mended+1, time.Now(), strings.Join(drift, "; ")
	}
	s.looks[uid] = l
}

func (s *seen) forget(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.looks, uid)
}

// forgotten is after how long a pod that was told to wait, and has not come
// again, waits no longer: runtimes try every few seconds to minutes.
const forgotten = 10 * time.Minute

// answered notes an answer to the plugin.
func (s *seen) answered(pod string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, w := range s.waiting {
		if time.Since(w.Last) > forgotten {
			delete(s.waiting, name)
		}
	}
	if err == nil {
		delete(s.waiting, pod)
		return
	}
	if s.waiting == nil {
		s.waiting = map[string]health.Waiting{}
	}
	w := s.waiting[pod]
	if w.Pod, w.Last, w.Reason = pod, time.Now(), err.Error(); w.Since.IsZero() {
		w.Since = w.Last
	}
	s.waiting[pod] = w
}

// Health is what is known of the node's pods, for `ambit check`.
func (a *Agent) Health() (pods []health.Pod, waiting []health.Waiting) {
	a.seen.mu.Lock()
	defer a.seen.mu.Unlock()
	for _, h := range a.cfg.Keeper.List() {
		l := a.seen.looks[h.Pod.UID]
		p := health.Pod{Pod: h.Pod.Pod.Namespace + "/" + h.Pod.Pod.Name, Phase: h.Phase.String(), Verified: l.verified, Mended: l.mended, Last: l.last, Drift: l.drift}
		if l.err != nil {
			p.Error = l.err.Error()
		}
		pods = append(pods, p)
	}
	for _, w := range a.seen.waiting {
		if time.Since(w.Last) <= forgotten {
			waiting = append(waiting, w)
		}
	}
	slices.SortFunc(pods, func(a, b health.Pod) int { return strings.Compare(a.Pod, b.Pod) })
	slices.SortFunc(waiting, func(a, b health.Waiting) int { return strings.Compare(a.Pod, b.Pod) })
	return pods, waiting
}
