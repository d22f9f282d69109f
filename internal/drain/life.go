package drain

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// Life is a proxy's whole life: its data plane, and what runs beside it and
// outlives it, as it is needed while the data plane drains.
type Life struct {
	// Begin starts what can be told at once not to work; nothing else runs if
	// so. What it gives to the group is beside the data plane.
	Begin func(ctx context.Context, group *errgroup.Group) error
	// Beside run until their ctx is done. One that fails ends the proxy.
	Beside []func(ctx context.Context) error
	// Serve is the data plane, until ctx is done and it has drained.
	Serve func(ctx context.Context) error
	// Quit ends the ctx that Run is given.
	Quit context.CancelFunc
}

// Run returns when everything has ended, with all that went wrong.
func (l Life) Run(ctx context.Context) error {
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, beside := errgroup.WithContext(beside)
	if err := l.Begin(beside, group); err != nil {
		return err
	}
	for _, run := range l.Beside {
		group.Go(func() error { return run(beside) })
	}
	defer context.AfterFunc(beside, l.Quit)()
	err := l.Serve(ctx)
	stop()
	return errors.Join(err, group.Wait())
}
