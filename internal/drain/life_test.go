package drain

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// nothing begins and does not fail.
func nothing(context.Context, *errgroup.Group) error { return nil }

func TestWhatRunsBesideOutlivesTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, quit := context.WithCancel(t.Context())
		served := false
		failed, ended := errors.New("of the data plane"), errors.New("of a part")
		late := func(err error) func(context.Context) error {
			return func(ctx context.Context) error {
				<-ctx.Done()
				if !served {
					t.Error("it is stopped before the data plane has drained")
				}
				time.Sleep(time.Second)
				return err
			}
		}
		l := Life{
			Begin: func(ctx context.Context, group *errgroup.Group) error {
				group.Go(func() error { return late(nil)(ctx) })
				return nil
			},
			Beside: []func(context.Context) error{late(ended), late(nil)}, Quit: quit,
			Serve: func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Minute)
				served = true
				return failed
			},
		}
		time.AfterFunc(time.Hour, quit)
		start := time.Now()
		err := l.Run(ctx)
		if took := time.Since(start); took != time.Hour+time.Minute+time.Second {
			t.Errorf("took %v: it does not wait for all", took)
		}
		if !errors.Is(err, failed) || !errors.Is(err, ended) {
			t.Errorf("error %v, want the data plane's and the part's", err)
		}
	})
}

func TestAPartThatFailsEndsTheProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, quit := context.WithCancel(t.Context())
		oops := errors.New("oops")
		err := Life{
			Begin: nothing, Quit: quit,
			Beside: []func(context.Context) error{func(context.Context) error { return oops }},
			Serve:  func(ctx context.Context) error { <-ctx.Done(); return nil },
		}.Run(ctx)
		if !errors.Is(err, oops) {
			t.Errorf("error %v, want the part's", err)
		}
	})
}

func TestNothingRunsIfTheBeginningFails(t *testing.T) {
	oops := errors.New("oops")
	never := func(context.Context) error { t.Error("it runs"); return nil }
	err := Life{
		Begin:  func(context.Context, *errgroup.Group) error { return oops },
		Beside: []func(context.Context) error{never}, Serve: never, Quit: func() {},
	}.Run(t.Context())
	if !errors.Is(err, oops) {
		t.Errorf("error %v", err)
	}
}
