package ask

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
)

// Opener opens a way to one proxy.
type Opener func(context.Context) (*reach.Door, error)

// asksAtOnce bounds the port-forwards of a command.
const asksAtOnce = 16

// NotRememberedError says that no proxy that answered remembers a decision.
type NotRememberedError struct {
	ID    string
	Asked int
}

// Error implements error.
func (e *NotRememberedError) Error() string {
	return fmt.Sprintf("none of the %d proxies remembers decision %s: it may be older than what they keep, or its proxy has ended", e.Asked, e.ID)
}

// Why asks every proxy for a decision and gives its stories in their order. The
// proxies that could not be asked are in silent.
func Why(ctx context.Context, proxies []Opener, id string) (stories []decision.Story, silent []error, err error) {
	if !decision.ValidID(id) {
		return nil, nil, fmt.Errorf("%q is no id of a decision: ids are 8 letters and digits, as in the access log's field id", id)
	}
	answers, silent := each(ctx, proxies, func(ctx context.Context, d *reach.Door) ([]decision.Story, error) {
		var found []decision.Story
		err := d.GetJSON(ctx, "/decisions/"+url.PathEscape(id), &found)
		var status *reach.StatusError
		if errors.As(err, &status) && status.Status == http.StatusNotFound && strings.Contains(status.Text, "not remembered") {
			return nil, nil
		}
		return found, err
	})
	stories = slices.Concat(answers...)
	slices.SortStableFunc(stories, func(a, b decision.Story) int { return a.At.Compare(b.At) })
	if len(stories) == 0 {
		return nil, silent, &NotRememberedError{ID: id, Asked: len(proxies) - len(silent)}
	}
	return stories, silent, nil
}

// each asks all proxies, some at once.
func each[T any](ctx context.Context, proxies []Opener, question func(context.Context, *reach.Door) (T, error)) (answers []T, silent []error) {
	all, errs := make([]T, len(proxies)), make([]error, len(proxies))
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for i, open := range proxies {
		g.Go(func() error {
			d, err := open(ctx)
			if err == nil {
				defer d.Close()
				all[i], err = question(ctx, d)
			}
			errs[i] = err
			return nil
		})
	}
	_ = g.Wait() // each error is in errs
	for i, err := range errs {
		if err != nil {
			silent = append(silent, err)
		} else {
			answers = append(answers, all[i])
		}
	}
	return answers, silent
}
