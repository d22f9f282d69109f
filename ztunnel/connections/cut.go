package connections

import (
	"context"
	"errors"
	"fmt"

	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// CutBy tells a connection that its proxy cut, when the proxy or the pod ended,
// from one that ended otherwise: err is how it ended, and cut what its proxy
// cuts by. A nil cut is never done.
func CutBy(cut context.Context, err error) (telemetry.Cut, error) {
	if err == nil || cut == nil || cut.Err() == nil {
		return telemetry.CutNone, err
	}
	why := context.Cause(cut)
	if errors.Is(why, drain.ErrGone) {
		return telemetry.CutGone, fmt.Errorf("cut: %w", why)
	}
	return telemetry.CutDrain, fmt.Errorf("cut: %w", drain.ErrDeadline)
}
