package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPodWaitsUntilItIsLetInOrComesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seen
		s.answered("shop/a", errors.New("no ztunnel"))
		began := time.Now()
		time.Sleep(time.Minute)
		s.answered("shop/a", errors.New("still none"))
		s.answered("shop/b", errors.New("no ztunnel"))
		if w := s.waiting["shop/a"]; len(s.waiting) != 2 || !w.Since.Equal(began) || w.Last.Sub(began) != time.Minute || w.Reason != "still none" {
			t.Errorf("%+v", s.waiting)
		}
		s.answered("shop/b", nil)
		if len(s.waiting) != 1 {
			t.Errorf("after b was let in: %+v", s.waiting)
		}
		time.Sleep(2 * forgotten)
		s.answered("shop/c", nil)
		if len(s.waiting) != 0 {
			t.Errorf("long after: %+v", s.waiting)
		}
	})
}

func TestWhatChangedInAPodIsCounted(t *testing.T) {
	var s seen
	s.looked("u", nil, nil)
	if l := s.looks["u"]; l.verified.IsZero() || l.mended != 0 || !l.last.IsZero() {
		t.Errorf("nothing changed: %+v", l)
	}
	s.looked("u", []string{"a rule", "a route"}, nil)
	s.looked("u", nil, errors.New("no such namespace"))
	if l := s.looks["u"]; l.mended != 1 || l.last.IsZero() || l.drift != "a rule; a route" || l.err == nil {
		t.Errorf("%+v", l)
	}
	if s.forget("u"); len(s.looks) != 0 {
		t.Error("a pod that is gone is remembered")
	}
}
