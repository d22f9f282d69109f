package telemetry

import (
	"cmp"
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// Keys of the record of a request, beside those of connections.
const (
	KeyMethod   = "method"
	KeyHost     = "host"
	KeyPath     = "path"
	KeyProto    = "proto"
	KeyStatus   = "status"
	KeyGRPC     = "grpc_status"
	KeyFlag     = "flag"
	KeyRule     = "rule"
	KeyBackend  = "backend"
	KeyAttempts = "attempts"
)

// write writes the one record of a request.
func (x *Exchanges) write(e *Exchange) {
	level := slog.LevelInfo
	if e.Flag != "" && e.Flag != ExchangeOK && e.Flag != ExchangeClientEnded {
		level = slog.LevelError // as a connection's: the mesh, not the application, ended it so
	}
	ctx := context.Background()
	if !x.log.Enabled(ctx, level) {
		return
	}
	var room [40]slog.Attr
	x.log.LogAttrs(ctx, level, "request complete", e.attrs(room[:0])...)
}

func (e *Exchange) attrs(attrs []slog.Attr) []slog.Attr {
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text(KeyID, e.ID)
	text(KeyMethod, e.Method)
	text(KeyHost, e.Host)
	path, _, _ := strings.Cut(e.Path, "?") // a query may hold secrets
	text(KeyPath, path)
	text(KeyProto, e.Proto)
	attrs = append(attrs, slog.Int(KeyStatus, e.Status))
	if e.Protocol == "grpc" {
		attrs = append(attrs, slog.Int(KeyGRPC, e.GRPCStatus))
	}
	flag := e.Flag
	if flag == "" {
		flag = ExchangeOK
	}
	text(KeyFlag, string(flag))
	attrs = e.decisionAttrs(attrs)
	attrs = e.endAttrs(attrs)
	// As for connections, the record speaks for the destination.
	attrs = append(attrs,
		slog.Uint64(KeyBytesSent, e.ResponseBytes), slog.Uint64(KeyBytesReceived, e.RequestBytes),
		slog.String(KeyDuration, e.Duration.Round(10*time.Microsecond).String()))
	text(KeyTrace, cmp.Or(e.TraceParent, e.TraceID))
	if e.Err != nil {
		text(KeyError, e.Err.Error())
	}
	return attrs
}

// decisionAttrs are who decided what.
func (e *Exchange) decisionAttrs(attrs []slog.Attr) []slog.Attr {
	if !e.Route.IsZero() {
		rule := e.RuleName
		if rule == "" {
			rule = strconv.Itoa(e.Rule)
		}
		attrs = append(attrs, slog.String(KeyRoute, e.Route.String()), slog.String(KeyRule, rule))
	}
	if e.Backend.Hostname != "" {
		backend := e.Backend.String() + ":" + strconv.Itoa(int(e.BackendPort))
		attrs = append(attrs, slog.String(KeyBackend, backend))
	}
	attrs = append(attrs, slog.Int(KeyAttempts, len(e.Attempts)))
	if !e.Policy.IsZero() {
		attrs = append(attrs, slog.String(KeyPolicy, e.Policy.String()))
	}
	if e.Reason != "" {
		attrs = append(attrs, slog.String(KeyReason, e.Reason))
	}
	return append(attrs, slog.Uint64(KeyGeneration, e.Generation))
}

func (e *Exchange) endAttrs(attrs []slog.Attr) []slog.Attr {
	if e.SourceAddr.IsValid() {
		attrs = append(attrs, slog.String(KeySourceAddr, e.SourceAddr.String()))
	}
	attrs = endAttrs(attrs, e.Source, e.SourceID, KeySourceWorkload, KeySourceNamespace, KeySourceIdentity, KeySourceCluster)
	if e.Service != nil {
		attrs = append(attrs, slog.String(KeyDestinationService, e.Service.Hostname))
	}
	if e.DestinationAddr.IsValid() {
		attrs = append(attrs, slog.String(KeyDestinationAddr, e.DestinationAddr.String()))
	}
	return endAttrs(attrs, e.Destination, e.DestinationID, KeyDestinationWorkload, KeyDestinationNamespace, KeyDestinationIdentity, KeyDestinationCluster)
}
