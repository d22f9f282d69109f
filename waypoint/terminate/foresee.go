package terminate

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/exchange"
)

// Foresee tells where a connection to a service's port would go that nobody
// makes. Where it would carry requests, the Arrival is given and the engine
// decides; else the Forecast is whole. An error says that the service is not
// this waypoint's.
func (t *Terminator) Foresee(a *decision.Asked) (*exchange.Arrival, decision.Forecast, error) {
	c := &crossing{
		Terminator: t, table: t.Table(), start: time.Now(), random: func(int) int { return 0 },
		peer: hbone.Peer{ID: a.Source, Remote: a.Address},
	}
	v := c.table.View()
	s := decision.Service(v, a.Host, a.Source.Namespace)
	if s == nil {
		return nil, decision.Forecast{}, fmt.Errorf("no service %s is known here", a.Host)
	}
	var err error
	if c.dst, err = t.resolve(v, net.JoinHostPort(s.Hostname, strconv.Itoa(int(a.Port))), s.Namespace); err != nil {
		return nil, decision.Forecast{}, err
	}
	switch c.speech() {
	case speechHTTP, speechUnknown:
		return &exchange.Arrival{Peer: a.Source, Source: a.Address, Dialled: c.dst.dialled, Service: s.Key(), Port: c.dst.port}, decision.Forecast{}, nil
	case speechTLS, speechTCP:
	}
	c.flow = telemetry.Flow{
		Direction: telemetry.Waypoint, SourceID: a.Source, SourceAddr: a.Address, Service: s, Generation: c.table.Generation(), DestinationAddr: c.dst.dialled,
	}
	return nil, c.foresee(), nil
}

// foresee decides on a connection that is not HTTP.
func (c *crossing) foresee() decision.Forecast {
	f := decision.Forecast{Allowed: true, Says: "the connection would be carried: the port is not HTTP"}
	o := telemetry.Outcome{}
	if err := c.authorize(); err != nil {
		f.Allowed, f.Says, o = false, c.verdict.String(), telemetry.Outcome{Flag: telemetry.FlagDeny, Policy: c.verdict.Policy, Reason: c.verdict.String()}
	} else if b, no := c.backend(); no != nil {
		f.Allowed, f.Says, o = false, no.err.Error(), telemetry.Outcome{Flag: no.flag, Err: no.err}
	} else {
		f.Says += "; to " + b.Service.String() + ":" + strconv.Itoa(int(b.Port))
	}
	f.Story = c.told(o, nothing{}).Tell()
	return f
}
