package terminate

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/exchange"
)

// Foresee tells where a connection to a service's port, or to a pod's own
// address, would go that nobody makes. Where it would carry requests, the Arrival is given and the engine
// decides; else the Forecast is whole. An error says that it is not
// this waypoint's.
func (t *Terminator) Foresee(a *decision.Asked) (*exchange.Arrival, decision.Forecast, error) {
	c := &crossing{
		Terminator: t, table: t.Table(), start: time.Now(), random: func(int) int { return 0 },
		peer: hbone.Peer{ID: a.Source, Remote: a.Address},
	}
	authority, err := c.authority(a)
	if err == nil {
		c.dst, err = t.resolve(c.table.View(), authority, a.Source.Namespace)
	}
	if err != nil {
		return nil, decision.Forecast{}, err
	}
	switch c.speech() {
	case speechHTTP, speechUnknown:
		arrival := &exchange.Arrival{Peer: a.Source, Source: a.Address, Dialled: c.dst.dialled, Port: c.dst.port}
		if c.dst.service != nil {
			arrival.Service = c.dst.service.Key()
		} else {
			arrival.Workload = c.dst.workload.UID
		}
		return arrival, decision.Forecast{}, nil
	case speechTLS, speechTCP:
	}
	c.flow = telemetry.Flow{
		Direction: telemetry.Waypoint, SourceID: a.Source, SourceAddr: a.Address, Service: c.dst.service, Generation: c.table.Generation(), DestinationAddr: c.dst.dialled,
	}
	return nil, c.foresee(), nil
}

// authority is what the client's proxy would ask for.
func (c *crossing) authority(a *decision.Asked) (string, error) {
	host := a.Host
	if _, err := netip.ParseAddr(host); err != nil {
		s := decision.Service(c.table.View(), host, a.Source.Namespace)
		if s == nil {
			return "", fmt.Errorf("no service %s is known here", host)
		}
		host = s.Hostname
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.Port))), nil
}

// foresee decides on a connection that is not HTTP.
func (c *crossing) foresee() decision.Forecast {
	f := decision.Forecast{Allowed: true, Says: "the connection would be carried: the port is not HTTP"}
	o := telemetry.Outcome{}
	if c.verdict = c.judge(c.table); !c.verdict.Allow {
		f.Allowed, f.Says, o = false, c.verdict.String(), telemetry.Outcome{Flag: telemetry.FlagDeny, Policy: c.verdict.Policy, Reason: c.verdict.String()}
	} else if b, no := c.backend(); no != nil {
		f.Allowed, f.Says, o = false, no.err.Error(), telemetry.Outcome{Flag: no.flag, Err: no.err}
	} else {
		f.Says += "; to " + b.Service.String() + ":" + strconv.Itoa(int(b.Port))
	}
	f.Story = c.told(o, nothing{}).Tell()
	return f
}
